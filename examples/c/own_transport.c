/* Reaches the recorder through a program, as OpenSSH's ProxyCommand does: a transport of the host's own.
 *
 *     cc own_transport.c $(pkg-config --cflags --libs castkeep) -o own_transport
 *     seq 1000 | ./own_transport rec.example:80 'ssh -W "$RECORDER" gateway.example'
 *
 * The name means nothing to castkeep: whoever brings the connection knows what it stands for. A connection is a socket to the
 * program, here; what castkeep asks of it is the five functions of `table`, none of which may wait. */
#define _GNU_SOURCE
#include "pipe.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct link {
    int fd;
    pid_t pid;
};

/* castkeep calls it once for each connection. What takes longer than a fork returns WOULD_BLOCK, and is called again. */
static int32_t start(void *command, const char *recorder, size_t len, void **out) {
    int ends[2];
    struct link *link = calloc(1, sizeof *link);
    if (!link || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return free(link), CASTKEEP_STATUS_NO_MEMORY;
    link->pid = fork();
    if (link->pid == 0) {
        char name[256] = "";
        memcpy(name, recorder, len < sizeof name ? len : sizeof name - 1); /* it does not end in NUL */
        setenv("RECORDER", name, 1);
        signal(SIGCHLD, SIG_DFL); /* what is ignored stays ignored in the program, and it may wait for children of its own */
        fcntl(ends[1], F_SETFL, 0); /* programs expect descriptors that wait */
        dup2(ends[1], STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        execl("/bin/sh", "sh", "-c", (const char *)command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    link->fd = ends[0];
    *out = link; /* from now on `close` is called for it, whatever happens */
    return link->pid < 0 ? CASTKEEP_STATUS_CLOSED : CASTKEEP_STATUS_OK;
}

/* Bytes, 0 at the end, WOULD_BLOCK, or any other failure. */
static int64_t answer(ssize_t n) {
    if (n >= 0) return n;
    return errno == EAGAIN || errno == EINTR ? CASTKEEP_STATUS_WOULD_BLOCK : CASTKEEP_STATUS_CLOSED;
}
static int64_t receive(void *command, void *link, uint8_t *buf, size_t len) {
    return (void)command, answer(recv(((struct link *)link)->fd, buf, len, 0));
}
static int64_t transmit(void *command, void *link, const uint8_t *data, size_t len) {
    return (void)command, answer(send(((struct link *)link)->fd, data, len, MSG_NOSIGNAL));
}

static int32_t wants(void *command, void *link, int32_t more, int *fd) {
    (void)command;
    *fd = ((struct link *)link)->fd;
    return CASTKEEP_WANTS_READ | (more ? CASTKEEP_WANTS_WRITE : 0);
}

/* A program that sees the end of its input ends. `abort`: what it has not passed on is to be lost. */
static void finish(void *command, void *of, int32_t abort) {
    struct link *link = of;
    (void)command;
    if (abort && link->pid > 0) kill(link->pid, SIGKILL);
    close(link->fd);
    free(link);
}

int main(int argc, char **argv) {
    static const castkeep_transport table = {sizeof table, start, receive, transmit, wants, finish};
    castkeep_config *config = castkeep_config_new();
    int32_t status;
    if (argc != 3) return give_up("usage", "own_transport NAME:PORT COMMAND <INPUT");
    signal(SIGCHLD, SIG_IGN); /* nobody asks how they ended */
    if (!config || (status = castkeep_config_set_transport(config, &table, argv[2])) ||
        (status = castkeep_config_add_recorder_host(config, argv[1], strlen(argv[1]))))
        return give_up(argv[1], config ? castkeep_status_str(status) : "no memory");
    return record_pipe(config, "own_transport");
}
