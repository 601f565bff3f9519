/* A small SSH server on libssh whose sessions are recorded by castkeep.
 *
 *     server [-p PORT] -k HOST_KEY -a AUTHORIZED_KEYS -c castkeep.hujson
 *
 * One process a connection, one thread, the polled driver: castkeep's descriptor is one more that ssh_event waits for. Users log in
 * with a key; a session is a shell, a command or sftp, with a terminal or without. It is complete in what it does, and small in
 * what it can be told: no passwords, no forwarding.
 *
 * Where the recording comes in is marked REC. The order matters in three places:
 *   - the program is forked at once, and held at a pipe until castkeep says START;
 *   - output is read only as far as castkeep has room, is given to castkeep first, and then sent;
 *   - the exit status is sent when the recording is stored.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <netdb.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

#include <castkeep.h>

enum { BUFFER_BYTES = 16 * 1024, CHANNELS_MAX = 16, CLOSE_MS = 2000, GRACE_S = 5 };
static const char sftp_server[] = "/usr/lib/openssh/sftp-server";

/* One of our ends of the program: a pipe or the terminal. */
struct end {
    int fd;
    bool polled; /* ssh_event waits for it */
    bool ready;  /* and found something */
    bool counted; /* what comes goes past the recording: files */
    uint64_t bytes;
};

struct conn;

struct chan {
    struct chan *next;
    struct conn *conn;
    ssh_channel channel;
    struct ssh_channel_callbacks_struct callbacks;
    char term[64];
    struct winsize size;
    bool has_pty, begun;

    castkeep_session *rec;
    bool held;       /* the program waits at the gate */
    bool terminated; /* policy ended the session */
    bool finishing;  /* the last event is given to castkeep */
    bool stored;     /* and castkeep has answered */

    pid_t pid;
    int gate;
    bool ended;
    int wait_status;
    int exit_code; /* used instead, when not -1 */
    time_t kill_at;

    struct end in, out, err;
    uint8_t input[BUFFER_BYTES];
    size_t input_from, input_to;
};

struct conn {
    ssh_session session;
    ssh_event event;
    struct chan *chans;
    const struct passwd *user;
    char address[64];
    char connection_id[96];
    char ends[256]; /* SSH_CONNECTION */
    castkeep_client *rec;
    bool rec_ready;
};

static const char *port = "2222", *host_key, *authorized_keys, *config_path;
static castkeep_config *config;
static int signals[2] = {-1, -1};
static volatile sig_atomic_t told_to_end;

static void on_signal(int number)
{
    int before = errno;
    if (number == SIGTERM || number == SIGHUP || number == SIGINT)
        told_to_end = number;
    if (write(signals[1], "", 1) < 0) { /* full: it is awake already */ }
    errno = before;
}

static void say(const char *what, const char *why)
{
    fprintf(stderr, "server[%d]: %s%s%s\n", (int)getpid(), what, why ? ": " : "", why ? why : "");
}

/* ---- descriptors in ssh_event ---- */

/* The work is done when ssh_event_dopoll has returned: writing to a channel may poll again inside of it. */
static int on_ready(socket_t fd, int revents, void *flag)
{
    (void)fd, (void)revents;
    *(bool *)flag = true;
    return 0;
}

static void wait_for(struct conn *conn, struct end *end, short events)
{
    if (end->fd >= 0 && !end->polled && ssh_event_add_fd(conn->event, end->fd, events, on_ready, &end->ready) == SSH_OK)
        end->polled = true;
}

static void pause_end(struct conn *conn, struct end *end)
{
    if (end->polled)
        ssh_event_remove_fd(conn->event, end->fd);
    end->polled = end->ready = false;
}

static void close_end(struct conn *conn, struct end *end)
{
    pause_end(conn, end);
    if (end->fd >= 0)
        close(end->fd);
    end->fd = -1;
}

/* ---- from the program to the user ---- */

static void discard(struct chan *chan)
{
    close_end(chan->conn, &chan->in);
    close_end(chan->conn, &chan->out);
    close_end(chan->conn, &chan->err);
}

/* REC: reads at most what castkeep takes whole and the client has room for; records first, then sends. */
static void pump_output(struct chan *chan, struct end *end, bool is_stderr)
{
    uint8_t buffer[BUFFER_BYTES];
    for (int turn = 0; turn < 16 && end->fd >= 0; turn++) {
        size_t most = sizeof buffer, room = castkeep_session_room(chan->rec), window = ssh_channel_window_size(chan->channel);
        if (!end->counted && room < most)
            most = room;
        if (window < most)
            most = window;
        if (chan->terminated)
            most = sizeof buffer; /* read and thrown away, so that the program can end */
        if (most == 0 || chan->held) {
            pause_end(chan->conn, end);
            return;
        }
        ssize_t n = read(end->fd, buffer, most);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            end->ready = false;
            wait_for(chan->conn, end, POLLIN);
            return;
        }
        if (n <= 0) { /* EIO: nothing has the terminal open any more */
            if (end == &chan->out && chan->has_pty)
                close_end(chan->conn, &chan->in);
            close_end(chan->conn, end);
            return;
        }
        if (chan->terminated)
            continue;
        end->bytes += (uint64_t)n;
        if (!end->counted &&
            castkeep_session_output(chan->rec, is_stderr ? CASTKEEP_STDERR : CASTKEEP_STDOUT, buffer, (size_t)n) !=
                CASTKEEP_STATUS_OK)
            continue; /* refused: it is not shown. TERMINATED follows. */
        int sent = is_stderr ? ssh_channel_write_stderr(chan->channel, buffer, (uint32_t)n)
                             : ssh_channel_write(chan->channel, buffer, (uint32_t)n);
        if (sent != (int)n) { /* the connection is gone */
            discard(chan);
            return;
        }
    }
    wait_for(chan->conn, end, POLLIN);
}

/* ---- from the user to the program ---- */

static void pump_input(struct chan *chan)
{
    if (chan->in.ready)
        pause_end(chan->conn, &chan->in);
    while (chan->in.fd >= 0 && !chan->terminated) {
        if (chan->input_from == chan->input_to) {
            int n = ssh_channel_read_nonblocking(chan->channel, chan->input, sizeof chan->input, 0);
            if (n <= 0) {
                if ((n == SSH_EOF || ssh_channel_is_eof(chan->channel)) && !chan->has_pty && !chan->held)
                    close_end(chan->conn, &chan->in);
                return;
            }
            chan->input_from = 0;
            chan->input_to = (size_t)n;
            castkeep_session_input(chan->rec, chan->input, (size_t)n);
        }
        ssize_t n = write(chan->in.fd, chan->input + chan->input_from, chan->input_to - chan->input_from);
        if (n < 0 && errno == EAGAIN) {
            chan->in.ready = false;
            wait_for(chan->conn, &chan->in, POLLOUT);
            return;
        }
        if (n < 0 && errno != EINTR) {
            if (!chan->has_pty)
                close_end(chan->conn, &chan->in);
            return;
        }
        if (n > 0)
            chan->input_from += (size_t)n;
    }
    /* A program that reads nothing any more leaves what comes to nobody. */
    if (chan->in.fd < 0 && chan->begun)
        while (ssh_channel_read_nonblocking(chan->channel, chan->input, sizeof chan->input, 0) > 0) {}
}

/* ---- the program ---- */

static _Noreturn void become_program(struct chan *chan, int gate, const char *command, bool is_sftp)
{
    const struct passwd *user = chan->conn->user;
    char go = 0, name[256];
    /* REC: held here. Another held child has this pipe's other end too, so a byte says no as well. */
    if (read(gate, &go, 1) != 1 || go != 'y')
        _exit(254);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    clearenv();
    setenv("HOME", user->pw_dir, 1);
    setenv("USER", user->pw_name, 1);
    setenv("LOGNAME", user->pw_name, 1);
    setenv("SHELL", user->pw_shell, 1);
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/games", 1);
    setenv("SSH_CONNECTION", chan->conn->ends, 1);
    if (chan->has_pty) {
        setenv("TERM", chan->term, 1);
        const char *tty = ttyname(0);
        if (tty)
            setenv("SSH_TTY", tty, 1);
    }
    if (chdir(user->pw_dir) != 0 && chdir("/") != 0)
        _exit(255);
    if (is_sftp) {
        execl(sftp_server, sftp_server, (char *)NULL);
        _exit(127);
    }
    const char *base = strrchr(user->pw_shell, '/');
    base = base ? base + 1 : user->pw_shell;
    if (command) {
        execl(user->pw_shell, base, "-c", command, (char *)NULL);
    } else {
        snprintf(name, sizeof name, "-%s", base);
        execl(user->pw_shell, name, (char *)NULL);
    }
    _exit(127);
}

static bool cloexec_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) == 0; }

/* Forks the program and leaves it at the gate. */
static bool fork_program(struct chan *chan, const char *command, bool is_sftp)
{
    int gate[2] = {-1, -1}, to[2] = {-1, -1}, from[2] = {-1, -1}, errors[2] = {-1, -1}, slave = -1;
    if (!cloexec_pipe(gate))
        return false;
    if (chan->has_pty) {
        if (openpty(&chan->out.fd, &slave, NULL, NULL, &chan->size) != 0)
            goto failed;
        fcntl(chan->out.fd, F_SETFD, FD_CLOEXEC);
        chan->in.fd = fcntl(chan->out.fd, F_DUPFD_CLOEXEC, 0);
        if (chan->in.fd < 0)
            goto failed;
    } else {
        if (!cloexec_pipe(to) || !cloexec_pipe(from) || !cloexec_pipe(errors))
            goto failed;
        chan->in.fd = to[1];
        chan->out.fd = from[0];
        chan->err.fd = errors[0];
        fcntl(chan->in.fd, F_SETFL, O_NONBLOCK);
        fcntl(chan->err.fd, F_SETFL, O_NONBLOCK);
    }
    fcntl(chan->out.fd, F_SETFL, O_NONBLOCK);
    chan->pid = fork();
    if (chan->pid == 0) {
        if (slave >= 0) {
            login_tty(slave);
        } else {
            setsid();
            dup2(to[0], 0);
            dup2(from[1], 1);
            dup2(errors[1], 2);
        }
        become_program(chan, gate[0], command, is_sftp);
    }
    close(gate[0]);
    chan->gate = gate[1];
    int others[] = {slave, to[0], from[1], errors[1]};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i] >= 0)
            close(others[i]);
    if (chan->pid > 0)
        return true;
    discard(chan);
    return false;
failed:
    say("a program cannot be started", strerror(errno));
    int all[] = {gate[0], gate[1], slave, to[0], to[1], from[0], from[1], errors[0], errors[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] >= 0)
            close(all[i]);
    close_end(chan->conn, &chan->in);
    close_end(chan->conn, &chan->out);
    close_end(chan->conn, &chan->err);
    chan->gate = -1;
    return false;
}

static void let_go(struct chan *chan, bool yes)
{
    if (!chan->held)
        return;
    chan->held = false;
    if (write(chan->gate, yes ? "y" : "n", 1) != 1)
        say("the gate", strerror(errno));
    close(chan->gate);
    chan->gate = -1;
    wait_for(chan->conn, &chan->out, POLLIN);
    wait_for(chan->conn, &chan->err, POLLIN);
}

static void signal_program(struct chan *chan, int number)
{
    if (chan->pid > 0 && !chan->ended)
        kill(-chan->pid, number);
}

/* ---- a session ---- */

static void tell(struct chan *chan, const char *message)
{
    size_t length = strlen(message);
    for (size_t at = 0; at < length;) {
        size_t line = strcspn(message + at, "\n");
        ssh_channel_write_stderr(chan->channel, message + at, (uint32_t)line);
        ssh_channel_write_stderr(chan->channel, chan->has_pty ? "\r\n" : "\n", chan->has_pty ? 2 : 1);
        at += line + (at + line < length);
    }
}

static void describe(struct chan *chan, int what, const char *text)
{
    if (text)
        castkeep_session_set_text(chan->rec, what, text, strlen(text));
}

static void mark(struct chan *chan, const char *label)
{
    castkeep_session_marker(chan->rec, label, strlen(label));
}

/* REC: opens the recording and answers the request at once; START comes later. */
static int begin(struct chan *chan, const char *command, bool is_sftp)
{
    struct conn *conn = chan->conn;
    char node[256] = "";
    if (chan->begun)
        return SSH_ERROR;
    gethostname(node, sizeof node - 1);
    int32_t status = castkeep_session_new(conn->rec, &chan->rec);
    if (status == CASTKEEP_STATUS_OK) {
        describe(chan, CASTKEEP_TEXT_SSH_USER, conn->user->pw_name);
        describe(chan, CASTKEEP_TEXT_LOCAL_USER, conn->user->pw_name);
        describe(chan, CASTKEEP_TEXT_SOURCE, conn->address);
        describe(chan, CASTKEEP_TEXT_SOURCE_ADDRESS, conn->address);
        describe(chan, CASTKEEP_TEXT_NODE, node);
        describe(chan, CASTKEEP_TEXT_PROGRAM, "castkeep-libssh-server");
        describe(chan, CASTKEEP_TEXT_CONNECTION_ID, conn->connection_id);
        describe(chan, CASTKEEP_TEXT_COMMAND, command);
        describe(chan, CASTKEEP_TEXT_KIND, is_sftp ? "subsystem" : NULL);
        describe(chan, CASTKEEP_TEXT_TERM, chan->has_pty ? chan->term : NULL);
        if (chan->has_pty)
            castkeep_session_resize(chan->rec, chan->size.ws_col, chan->size.ws_row);
        status = castkeep_session_open(chan->rec);
    }
    if (status != CASTKEEP_STATUS_OK) {
        say("a session cannot be recorded", castkeep_status_str(status));
        castkeep_session_free(chan->rec);
        chan->rec = NULL;
        return SSH_ERROR;
    }
    chan->begun = true;
    chan->out.counted = is_sftp;
    chan->held = true;
    if (fork_program(chan, command, is_sftp))
        return SSH_OK;
    chan->held = false;
    castkeep_session_free(chan->rec);
    chan->rec = NULL;
    return SSH_ERROR;
}

/* REC: the exit status goes to castkeep now and to the client when it is stored. */
static void finish(struct chan *chan)
{
    if (chan->finishing)
        return;
    chan->finishing = true;
    if (chan->out.counted) {
        char label[128];
        snprintf(label, sizeof label, "castkeep:gap bytes=%llu ms=0 stream=stdout", (unsigned long long)chan->out.bytes);
        mark(chan, label);
    }
    if (chan->exit_code >= 0)
        castkeep_session_exit(chan->rec, CASTKEEP_EXIT_CODE, chan->exit_code);
    else if (WIFSIGNALED(chan->wait_status))
        castkeep_session_exit(chan->rec, CASTKEEP_EXIT_SIGNAL, WTERMSIG(chan->wait_status));
    else
        castkeep_session_exit(chan->rec, CASTKEEP_EXIT_CODE, WEXITSTATUS(chan->wait_status));
    castkeep_session_finish(chan->rec);
}

static void send_status(struct chan *chan)
{
    if (chan->exit_code >= 0)
        ssh_channel_request_send_exit_status(chan->channel, chan->exit_code);
    else if (WIFSIGNALED(chan->wait_status))
        ssh_channel_request_send_exit_signal(chan->channel, sigabbrev_np(WTERMSIG(chan->wait_status)), 0, "", "");
    else
        ssh_channel_request_send_exit_status(chan->channel, WEXITSTATUS(chan->wait_status));
    ssh_channel_send_eof(chan->channel);
    ssh_channel_close(chan->channel);
}

static void free_chan(struct chan *chan)
{
    let_go(chan, false);
    discard(chan);
    castkeep_session_free(chan->rec);
    ssh_remove_channel_callbacks(chan->channel, &chan->callbacks);
    ssh_channel_free(chan->channel);
    free(chan);
}

/* ---- requests ---- */

static int on_pty(ssh_session session, ssh_channel channel, const char *term, int cols, int rows, int px, int py, void *data)
{
    struct chan *chan = data;
    (void)session, (void)channel;
    snprintf(chan->term, sizeof chan->term, "%s", term);
    chan->size = (struct winsize){.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows,
                                  .ws_xpixel = (unsigned short)px, .ws_ypixel = (unsigned short)py};
    chan->has_pty = !chan->begun;
    return chan->begun ? SSH_ERROR : SSH_OK;
}

static int on_resize(ssh_session session, ssh_channel channel, int cols, int rows, int px, int py, void *data)
{
    struct chan *chan = data;
    (void)session, (void)channel;
    chan->size = (struct winsize){.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows,
                                  .ws_xpixel = (unsigned short)px, .ws_ypixel = (unsigned short)py};
    if (chan->rec) /* REC: before the program draws for the new size */
        castkeep_session_resize(chan->rec, chan->size.ws_col, chan->size.ws_row);
    if (chan->has_pty && chan->out.fd >= 0)
        ioctl(chan->out.fd, TIOCSWINSZ, &chan->size);
    return SSH_OK;
}

static int on_shell(ssh_session session, ssh_channel channel, void *data)
{
    (void)session, (void)channel;
    return begin(data, NULL, false);
}

static int on_exec(ssh_session session, ssh_channel channel, const char *command, void *data)
{
    (void)session, (void)channel;
    return begin(data, command, false);
}

static int on_subsystem(ssh_session session, ssh_channel channel, const char *name, void *data)
{
    (void)session, (void)channel;
    return strcmp(name, "sftp") == 0 ? begin(data, sftp_server, true) : SSH_ERROR;
}

static ssh_channel on_channel(ssh_session session, void *data)
{
    struct conn *conn = data;
    int open = 0;
    for (struct chan *chan = conn->chans; chan; chan = chan->next)
        open++;
    struct chan *chan = open < CHANNELS_MAX ? calloc(1, sizeof *chan) : NULL;
    if (!chan || !(chan->channel = ssh_channel_new(session))) {
        free(chan);
        return NULL;
    }
    chan->conn = conn;
    chan->exit_code = chan->gate = chan->in.fd = chan->out.fd = chan->err.fd = -1;
    chan->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = chan,
        .channel_pty_request_function = on_pty,
        .channel_pty_window_change_function = on_resize,
        .channel_shell_request_function = on_shell,
        .channel_exec_request_function = on_exec,
        .channel_subsystem_request_function = on_subsystem,
    };
    ssh_callbacks_init(&chan->callbacks);
    ssh_set_channel_callbacks(chan->channel, &chan->callbacks);
    chan->next = conn->chans;
    conn->chans = chan;
    return chan->channel;
}

/* ---- logging in ---- */

static int on_key(ssh_session session, const char *name, struct ssh_key_struct *key, char state, void *data)
{
    struct conn *conn = data;
    char line[8192];
    bool known = false;
    (void)session;
    FILE *file = fopen(authorized_keys, "re");
    while (file && !known && fgets(line, sizeof line, file)) {
        char *type = strtok(line, " \t\n"), *blob = strtok(NULL, " \t\n");
        ssh_key allowed = NULL;
        if (!type || !blob || ssh_pki_import_pubkey_base64(blob, ssh_key_type_from_name(type), &allowed) != SSH_OK)
            continue;
        known = ssh_key_cmp(key, allowed, SSH_KEY_CMP_PUBLIC) == 0;
        ssh_key_free(allowed);
    }
    if (file)
        fclose(file);
    if (!known || (state != SSH_PUBLICKEY_STATE_NONE && state != SSH_PUBLICKEY_STATE_VALID))
        return SSH_AUTH_DENIED;
    if (state == SSH_PUBLICKEY_STATE_VALID) {
        conn->user = getpwnam(name);
        if (!conn->user)
            return SSH_AUTH_DENIED;
    }
    return SSH_AUTH_SUCCESS;
}

/* REC: with the rights that opening keys and certificates needs, and before they are given up. */
static bool become_user(struct conn *conn)
{
    int32_t status = castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &conn->rec);
    if (status != CASTKEEP_STATUS_OK) {
        say("castkeep", castkeep_status_str(status));
        return false;
    }
    const struct passwd *user = conn->user;
    if (getuid() == 0 && (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) {
        say("giving up root's rights", strerror(errno));
        return false;
    }
    if (getuid() != user->pw_uid) {
        say("this server runs as another user", user->pw_name);
        return false;
    }
    return ssh_event_add_fd(conn->event, castkeep_client_fd(conn->rec), POLLIN, on_ready, &conn->rec_ready) == SSH_OK;
}

/* ---- the loop of a connection ---- */

/* REC: nothing more is shown, or nothing ever is. */
static void tell_why(struct chan *chan)
{
    char message[4096];
    castkeep_session_message(chan->rec, message, sizeof message);
    message[sizeof message - 1] = 0;
    tell(chan, message);
    chan->terminated = true;
    chan->exit_code = 254;
}

/* REC: all that castkeep has to say. */
static void heed_castkeep(struct conn *conn)
{
    int32_t event;
    castkeep_session *session;
    conn->rec_ready = false;
    castkeep_client_process(conn->rec);
    while (castkeep_client_next_event(conn->rec, &event, &session) == CASTKEEP_STATUS_OK && event != CASTKEEP_EVENT_NONE) {
        struct chan *chan = conn->chans;
        while (chan && chan->rec != session)
            chan = chan->next;
        if (!chan)
            continue;
        switch (event) {
        case CASTKEEP_EVENT_START:
            if (chan->out.counted)
                mark(chan, "castkeep:sftp");
            let_go(chan, true);
            break;
        case CASTKEEP_EVENT_REFUSED: /* its last: the program ends by itself, and nothing is stored */
            tell_why(chan);
            let_go(chan, false);
            chan->finishing = chan->stored = true;
            break;
        case CASTKEEP_EVENT_TERMINATED:
            tell_why(chan);
            let_go(chan, false);
            signal_program(chan, SIGHUP);
            signal_program(chan, SIGCONT);
            chan->kill_at = time(NULL) + GRACE_S;
            break;
        case CASTKEEP_EVENT_FINISHED:
        case CASTKEEP_EVENT_INCOMPLETE:
            chan->stored = true;
            break;
        default: /* ROOM: the loop looks at every channel */
            break;
        }
    }
}

static void collect_children(struct conn *conn)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (struct chan *chan = conn->chans; chan; chan = chan->next)
            if (chan->pid == pid) {
                chan->ended = true;
                chan->wait_status = status;
            }
}

/* False when the channel is over and can be freed. */
static bool serve_chan(struct chan *chan)
{
    bool closed = ssh_channel_is_closed(chan->channel) || !ssh_channel_is_open(chan->channel);
    if (!chan->begun)
        return !closed;
    if (closed && !chan->kill_at) { /* the client went away */
        let_go(chan, false);
        signal_program(chan, SIGHUP);
        signal_program(chan, SIGCONT);
        discard(chan);
        chan->kill_at = time(NULL) + GRACE_S;
    }
    if (chan->kill_at && time(NULL) >= chan->kill_at)
        signal_program(chan, SIGKILL);
    if (!closed) {
        pump_input(chan);
        pump_output(chan, &chan->out, false);
        pump_output(chan, &chan->err, true);
    }
    /* On a terminal what it left in the background is not waited for; behind a pipe it is. */
    bool drained = chan->out.fd < 0 && chan->err.fd < 0;
    if (chan->ended && (drained || chan->terminated || (chan->has_pty && !chan->out.ready)))
        finish(chan);
    if (chan->stored && !closed)
        send_status(chan);
    return !chan->stored;
}

static void serve_connection(struct conn *conn)
{
    char bytes[64];
    while (ssh_is_connected(conn->session) && !told_to_end) {
        /* A second: nobody wakes this up for what happens at a time. */
        if (ssh_event_dopoll(conn->event, 1000) == SSH_ERROR)
            break;
        while (read(signals[0], bytes, sizeof bytes) > 0) {}
        collect_children(conn);
        heed_castkeep(conn);
        for (struct chan **at = &conn->chans; *at;) {
            struct chan *chan = *at;
            if (serve_chan(chan)) {
                at = &chan->next;
                continue;
            }
            *at = chan->next;
            free_chan(chan);
        }
    }
    /* REC: disconnected, or told to end. What was recorded is delivered, for so long. */
    for (struct chan *chan = conn->chans; chan; chan = chan->next) {
        if (!chan->begun)
            continue;
        let_go(chan, false);
        signal_program(chan, SIGHUP);
        signal_program(chan, SIGCONT);
    }
    for (struct chan *chan = conn->chans; chan; chan = chan->next) {
        if (!chan->rec)
            continue;
        if (!chan->finishing) {
            castkeep_session_exit(chan->rec, CASTKEEP_EXIT_DISCONNECTED, 0);
        }
        castkeep_session_close(chan->rec, CLOSE_MS);
    }
    while (conn->chans) {
        struct chan *chan = conn->chans;
        conn->chans = chan->next;
        free_chan(chan);
    }
    castkeep_client_free(conn->rec);
}

static bool name_of(ssh_session session, int (*of)(int, struct sockaddr *, socklen_t *), char host[64], char service[16])
{
    struct sockaddr_storage end;
    socklen_t length = sizeof end;
    return of(ssh_get_fd(session), (struct sockaddr *)&end, &length) == 0 &&
           getnameinfo((struct sockaddr *)&end, length, host, 64, service, 16, NI_NUMERICHOST | NI_NUMERICSERV) == 0;
}

static int serve(ssh_session session)
{
    struct conn conn = {.session = session};
    char service[16], own[64], own_service[16];
    if (!name_of(session, getpeername, conn.address, service) || !name_of(session, getsockname, own, own_service))
        return 1;
    snprintf(conn.connection_id, sizeof conn.connection_id, "%s-%s", conn.address, service);
    snprintf(conn.ends, sizeof conn.ends, "%s %s %s %s", conn.address, service, own, own_service);
    fcntl(ssh_get_fd(session), F_SETFD, FD_CLOEXEC);

    struct ssh_server_callbacks_struct callbacks = {
        .userdata = &conn,
        .auth_pubkey_function = on_key,
        .channel_open_request_session_function = on_channel,
    };
    ssh_callbacks_init(&callbacks);
    ssh_set_server_callbacks(session, &callbacks);
    ssh_set_auth_methods(session, SSH_AUTH_METHOD_PUBLICKEY);
    conn.event = ssh_event_new();
    if (ssh_handle_key_exchange(session) != SSH_OK || !conn.event) {
        say("key exchange", ssh_get_error(session));
        return 1;
    }
    ssh_event_add_session(conn.event, session);
    bool awake = false;
    ssh_event_add_fd(conn.event, signals[0], POLLIN, on_ready, &awake);
    time_t by = time(NULL) + 60;
    while (!conn.user) {
        if (time(NULL) > by || told_to_end || ssh_event_dopoll(conn.event, 1000) == SSH_ERROR || !ssh_is_connected(session))
            return 1;
    }
    if (!become_user(&conn))
        return 1;
    serve_connection(&conn);
    ssh_event_free(conn.event);
    ssh_disconnect(session);
    ssh_free(session);
    return 0;
}

/* ---- the listener ---- */

int main(int argc, char **argv)
{
    for (int letter; (letter = getopt(argc, argv, "p:k:a:c:")) != -1;)
        switch (letter) {
        case 'p': port = optarg; break;
        case 'k': host_key = optarg; break;
        case 'a': authorized_keys = optarg; break;
        case 'c': config_path = optarg; break;
        default: return 2;
        }
    if (!host_key || !authorized_keys || !config_path) {
        fprintf(stderr, "usage: %s [-p PORT] -k HOST_KEY -a AUTHORIZED_KEYS -c CONFIG\n", argv[0]);
        return 2;
    }
    /* REC: checked once, here: a wrong file stops the server at its start, not the first login. */
    char why[512] = "";
    if (castkeep_config_load(config_path, strlen(config_path), why, sizeof why, &config) != CASTKEEP_STATUS_OK) {
        say(config_path, why);
        return 1;
    }
    if (pipe2(signals, O_CLOEXEC | O_NONBLOCK) != 0)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = on_signal};
    int caught[] = {SIGCHLD, SIGTERM, SIGHUP, SIGINT};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaction(caught[i], &action, NULL);

    ssh_init();
    ssh_bind listener = ssh_bind_new();
    ssh_bind_options_set(listener, SSH_BIND_OPTIONS_BINDADDR, "127.0.0.1");
    ssh_bind_options_set(listener, SSH_BIND_OPTIONS_BINDPORT_STR, port);
    ssh_bind_options_set(listener, SSH_BIND_OPTIONS_HOSTKEY, host_key);
    if (ssh_bind_listen(listener) != SSH_OK) {
        say("listening", ssh_get_error(listener));
        return 1;
    }
    fcntl(ssh_bind_get_fd(listener), F_SETFD, FD_CLOEXEC);
    while (!told_to_end) {
        struct pollfd fds[] = {{.fd = ssh_bind_get_fd(listener), .events = POLLIN}, {.fd = signals[0], .events = POLLIN}};
        char bytes[64];
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        while (read(signals[0], bytes, sizeof bytes) > 0) {}
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
        if (!(fds[0].revents & POLLIN))
            continue;
        ssh_session session = ssh_new();
        if (ssh_bind_accept(listener, session) != SSH_OK) {
            ssh_free(session);
            continue;
        }
        pid_t pid = fork();
        if (pid == 0) {
            close(ssh_bind_get_fd(listener));
            /* Its own: the parent's would wake the other. */
            close(signals[0]);
            close(signals[1]);
            if (pipe2(signals, O_CLOEXEC | O_NONBLOCK) != 0)
                _exit(1);
            _exit(serve(session));
        }
        ssh_free(session); /* closes our copy of the descriptor alone */
    }
    ssh_bind_free(listener);
    castkeep_config_free(config);
    ssh_finalize();
    return 0;
}
