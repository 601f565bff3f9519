/* The polled driver with the system calls of castkeep.h alone: any other ends the program, which says its number. A session, a recorder
 * that is lost in its middle (whoever runs this kills it and then writes a line), and the end.
 *
 *   seccomp RECORDERS [PIN] */
#define _GNU_SOURCE
#include "rules.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What castkeep.h says of the polled driver. */
static const int library[] = {
    SYS_epoll_create1, SYS_timerfd_create, SYS_timerfd_settime, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait, SYS_socket, SYS_connect,
    SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_shutdown, SYS_sendto, SYS_recvfrom, SYS_read, SYS_close, SYS_poll, SYS_ppoll, SYS_getrandom, SYS_getpid, SYS_clock_gettime, SYS_madvise,
    /* the C library's allocator */
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap,
};
/* This program's own: what it prints (to standard output alone: a write to a socket could raise SIGPIPE), its end. */
static const int host[] = {SYS_newfstatat, SYS_fstat, SYS_exit_group, SYS_rt_sigreturn};

static void strange(int signal, siginfo_t *what, void *context) {
    char text[80];
    int n = snprintf(text, sizeof text, "FAILED: system call %d is not in castkeep.h\n", what->si_syscall);
    (void)signal, (void)context;
    if (write(1, text, (size_t)n) < 0) {}
    _exit(1);
}

static void filter(void) {
    struct sock_filter program[7 + 2 * (sizeof library + sizeof host) / sizeof(int) + 1], *at = program;
    struct sock_fprog whole;
    struct sigaction action;
    size_t i;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = strange;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, NULL);
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (i = 0; i < sizeof library / sizeof *library + sizeof host / sizeof *host; i++) {
        int call = i < sizeof library / sizeof *library ? library[i] : host[i - sizeof library / sizeof *library];
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1);
        *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3);
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, STDOUT_FILENO, 0, 1);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    whole.len = (unsigned short)(at - program);
    whole.filter = program;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole) != 0) hopeless("seccomp", 0);
}

static void lines(castkeep_client *client, castkeep_session *session, int from, int to) {
    char line[32];
    for (; from < to; from++) {
        snprintf(line, sizeof line, "line %08d\n", from);
        while (castkeep_session_room(session) < strlen(line))
            if (!until(client, CASTKEEP_EVENT_ROOM)) hopeless("room", CASTKEEP_STATUS_TIMED_OUT);
        IS(say(session, line), CASTKEEP_STATUS_OK);
        if (from % 100 == 0) IS(castkeep_client_process(client), CASTKEEP_STATUS_OK);
    }
}

int main(int argc, char **argv) {
    castkeep_config *config;
    castkeep_client *client = NULL;
    castkeep_session *session;
    castkeep_stats stats;
    char go;
    if (argc < 2) return 64;
    config = closed_config(argv[1]);
    if (argc > 2 && castkeep_config_set_text(config, CASTKEEP_OPTION_TLS_PIN, argv[2], strlen(argv[2])) != 0) return 64;
    filter();
    IS(castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client), CASTKEEP_STATUS_OK);
    session = running(client, "seccomp");
    lines(client, session, 0, 50000);
    printf("half\n");
    fflush(stdout);
    if (read(0, &go, 1) != 1) return 64;
    lines(client, session, 50000, 100000);
    IS(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), CASTKEEP_STATUS_OK);
    IS(castkeep_session_finish(session), CASTKEEP_STATUS_OK);
    HOLDS(until(client, CASTKEEP_EVENT_FINISHED));
    stats.size = sizeof stats;
    IS(castkeep_session_stats(session, &stats), CASTKEEP_STATUS_OK);
    HOLDS(stats.losses == 1);
    castkeep_session_free(session);
    castkeep_client_free(client);
    castkeep_config_free(config);
    part("a session and a failover with the documented system calls alone");
    return failures != 0;
}
