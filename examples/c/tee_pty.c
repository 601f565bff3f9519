/* Runs a shell, or a command, on a terminal of its own and records it: what an SSH server does for a channel, at a desk.
 *
 *     cc tee_pty.c $(pkg-config --cflags --libs castkeep) -lutil -o tee_pty
 *     ./tee_pty castkeep.hujson                    # a shell; its status is ours
 *     ./tee_pty castkeep.hujson make deploy
 *
 * The places to look at:
 *   held     the program is forked, and waits at a pipe until castkeep says START. REFUSED closes the pipe: nothing ran.
 *   room     the terminal is read only as far as castkeep takes it; what is not read holds the program back by itself.
 *   order    recorded first, then shown.
 *   end      the exit status is ours when castkeep has said FINISHED or INCOMPLETE.
 */
#define _GNU_SOURCE
#include <castkeep.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int wake[2]; /* a signal, as something that poll waits for */
static volatile sig_atomic_t resized, told_to_end;
static struct termios before;
static bool is_raw;

static void on_signal(int number)
{
    int saved = errno;
    if (number == SIGWINCH) resized = 1;
    else if (number != SIGCHLD) told_to_end = number;
    if (write(wake[1], "", 1) < 0) { /* full: it is awake already */ }
    errno = saved;
}

static void restore_terminal(void)
{
    if (is_raw) tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    is_raw = false;
}

static __attribute__((noreturn)) void give_up(const char *what, const char *why)
{
    restore_terminal();
    fprintf(stderr, "tee_pty: %s: %s\n", what, why);
    exit(2);
}

static void must(const char *what, int32_t status)
{
    if (status != CASTKEEP_STATUS_OK) give_up(what, castkeep_status_str(status));
}

static int write_all(int fd, const char *at, size_t left)
{
    while (left > 0) {
        ssize_t n = write(fd, at, left);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd one = {fd, POLLOUT, 0};
            poll(&one, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return -1;
        } else if (n > 0) {
            at += n, left -= (size_t)n;
        }
    }
    return 0;
}

static void describe(castkeep_session *session, int32_t what, const char *text)
{
    if (text) must("castkeep_session_set_text", castkeep_session_set_text(session, what, text, strlen(text)));
}

/* In the child. Nothing of castkeep's may be called here: every call would answer FORKED. */
static __attribute__((noreturn)) void become_program(int gate, char **argv)
{
    char go = 0, name[256];
    if (read(gate, &go, 1) != 1) _exit(254); /* refused, or we are gone */
    if (argv[0]) {
        execvp(argv[0], argv);
    } else {
        const char *shell = getenv("SHELL") ? getenv("SHELL") : "/bin/sh", *base = strrchr(shell, '/');
        snprintf(name, sizeof name, "%s", base ? base + 1 : shell);
        execl(shell, name, (char *)NULL);
    }
    fprintf(stderr, "%s: %s\n", argv[0] ? argv[0] : "the shell", strerror(errno));
    _exit(127);
}

int main(int argc, char **argv)
{
    castkeep_config *config;
    castkeep_client *client;
    castkeep_session *session, *which;
    char text[1024] = "", buf[16384], node[256] = "", typed[1024];
    size_t typed_from = 0, typed_to = 0;
    struct winsize size = {.ws_col = 80, .ws_row = 24};
    /* shut: no more is read or written; stopped: by policy; gone: the terminal is, and the program is still to be waited for. */
    int gate[2], master, wait_status = 0, exit_code = -1;
    bool has_tty = isatty(STDIN_FILENO), started = false, shut = false, stopped = false, eof = false, gone = false;

    if (argc < 2) give_up("usage", "tee_pty CONFIG [COMMAND [ARGUMENT...]]");
    if (castkeep_version_num() != CASTKEEP_VERSION_NUM) give_up("castkeep", "another version than this was built for");
    if (castkeep_config_load(argv[1], strlen(argv[1]), text, sizeof text, &config) != CASTKEEP_STATUS_OK) give_up(argv[1], text);

    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0 || pipe2(gate, O_CLOEXEC) != 0) give_up("pipe", strerror(errno));
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    const int handled[] = {SIGCHLD, SIGWINCH, SIGTERM, SIGHUP, SIGINT};
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) sigaction(handled[i], &action, NULL);

    if (has_tty) {
        ioctl(STDIN_FILENO, TIOCGWINSZ, &size);
        if (tcgetattr(STDIN_FILENO, &before) != 0) give_up("tcgetattr", strerror(errno));
    }
    pid_t pid = forkpty(&master, NULL, has_tty ? &before : NULL, &size);
    if (pid < 0) give_up("forkpty", strerror(errno));
    if (pid == 0) {
        for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) signal(handled[i], SIG_DFL);
        close(gate[1]); /* so that our end is the only one */
        become_program(gate[0], argv + 2);
    }
    close(gate[0]);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(master, F_SETFL, O_NONBLOCK);

    /* One client a process, made in the process that moves it. */
    must("castkeep_client_new", castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client));
    must("castkeep_session_new", castkeep_session_new(client, &session));
    const struct passwd *user = getpwuid(getuid());
    gethostname(node, sizeof node - 1);
    describe(session, CASTKEEP_TEXT_LOCAL_USER, user ? user->pw_name : NULL);
    describe(session, CASTKEEP_TEXT_TERM, getenv("TERM"));
    describe(session, CASTKEEP_TEXT_NODE, node);
    describe(session, CASTKEEP_TEXT_PROGRAM, "tee_pty");
    if (argc > 2) {
        char command[4096] = "";
        for (int i = 2; i < argc; i++) {
            size_t at = strlen(command);
            snprintf(command + at, sizeof command - at, "%s%s", i > 2 ? " " : "", argv[i]);
        }
        describe(session, CASTKEEP_TEXT_COMMAND, command);
    }
    castkeep_session_resize(session, size.ws_col, size.ws_row);
    must("castkeep_session_open", castkeep_session_open(session));

    while (exit_code < 0) {
        /* Nothing has the terminal open any more; the program itself may go on for a while, and SIGCHLD wakes us. */
        if (gone && waitpid(pid, &wait_status, WNOHANG) == pid) {
            gone = false;
            if (WIFSIGNALED(wait_status)) castkeep_session_exit(session, CASTKEEP_EXIT_SIGNAL, WTERMSIG(wait_status));
            else castkeep_session_exit(session, CASTKEEP_EXIT_CODE, WEXITSTATUS(wait_status));
            castkeep_session_finish(session);
        }
        bool reads = started && !shut && castkeep_session_room(session) > 0;
        bool takes = started && !shut && !eof && typed_from == typed_to;
        struct pollfd fds[4] = {
            {castkeep_client_fd(client), POLLIN, 0},
            {wake[0], POLLIN, 0},
            {takes ? STDIN_FILENO : -1, POLLIN, 0},
            /* With no events wanted, poll still tells of a hang-up, over and over: left out when there is nothing to do with it. */
            {reads || (!shut && typed_from < typed_to) ? master : -1,
             (short)((reads ? POLLIN : 0) | (typed_from < typed_to ? POLLOUT : 0)), 0},
        };
        if (poll(fds, 4, -1) < 0 && errno != EINTR) give_up("poll", strerror(errno));
        while (read(wake[0], buf, sizeof buf) > 0) {}
        if (resized) {
            resized = 0;
            if (has_tty && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
                ioctl(master, TIOCSWINSZ, &size);
                castkeep_session_resize(session, size.ws_col, size.ws_row);
            }
        }
        if (told_to_end && !stopped) {
            kill(-pid, SIGHUP); /* the output ends, and with it the session, in order */
            told_to_end = 0;
        }

        must("castkeep_client_process", castkeep_client_process(client));
        int32_t event;
        while (castkeep_client_next_event(client, &event, &which) == CASTKEEP_STATUS_OK && event != CASTKEEP_EVENT_NONE) {
            switch (event) {
            case CASTKEEP_EVENT_START:
                started = true;
                if (write(gate[1], "y", 1) != 1) give_up("the gate", strerror(errno));
                close(gate[1]);
                if (has_tty) {
                    struct termios raw = before;
                    cfmakeraw(&raw);
                    is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
                }
                break;
            case CASTKEEP_EVENT_REFUSED:
            case CASTKEEP_EVENT_TERMINATED:
                castkeep_session_message(session, text, sizeof text);
                restore_terminal();
                fprintf(stderr, "%s%s", text, strchr(text, '\n') ? "" : "\n");
                shut = stopped = true;
                gone = false;
                if (event == CASTKEEP_EVENT_REFUSED) {
                    close(gate[1]); /* the child reads the end of the pipe, and is gone */
                    exit_code = 254;
                } else {
                    kill(-pid, SIGHUP);
                    castkeep_session_exit(session, CASTKEEP_EXIT_SIGNAL, SIGHUP);
                    castkeep_session_finish(session);
                }
                break;
            case CASTKEEP_EVENT_FINISHED:
            case CASTKEEP_EVENT_INCOMPLETE:
                exit_code = stopped ? 254 : WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
                break;
            default: /* ROOM: the loop asks for room in any case */
                break;
            }
        }

        if (fds[2].revents && !shut) {
            ssize_t n = read(STDIN_FILENO, typed, sizeof typed);
            typed_from = 0;
            typed_to = n > 0 ? (size_t)n : 0;
            if (n == 0) { /* for a terminal the end is a character */
                eof = true;
                typed[typed_to++] = 4;
            }
        }
        if (typed_from < typed_to && started && !shut) {
            ssize_t n = write(master, typed + typed_from, typed_to - typed_from);
            if (n > 0) typed_from += (size_t)n;
            else if (n < 0 && errno != EAGAIN && errno != EINTR) typed_from = typed_to = 0;
        }
        size_t room = castkeep_session_room(session); /* asked again: it may have become less */
        if (!reads || shut || !(fds[3].revents & (POLLIN | POLLHUP | POLLERR)) || room == 0) continue;
        ssize_t n = read(master, buf, room < sizeof buf ? room : sizeof buf);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) { /* EIO: see the top of the loop */
            shut = gone = true;
        } else if (castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)buf, (size_t)n) == CASTKEEP_STATUS_OK) {
            if (write_all(STDOUT_FILENO, buf, (size_t)n) != 0) kill(-pid, SIGHUP);
        } /* else it is not shown; TERMINATED follows */
    }
    restore_terminal();
    castkeep_session_free(session);
    castkeep_client_free(client);
    castkeep_config_free(config);
    return exit_code;
}
