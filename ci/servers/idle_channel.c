/* What no client of OpenSSH does: session channels in which nothing is started, beside one in which something is.
 *
 *     idle_channel PORT USER KEY COMMAND
 *
 * Says each step and waits for a line before the next, so that the server can be looked at in between. */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static ssh_session session;

static void require(int ok, const char *what)
{
    if (ok)
        return;
    printf("failed: %s: %s\n", what, ssh_get_error(session));
    exit(1);
}

static void step(const char *name)
{
    char line[64];
    printf("%s\n", name);
    require(fflush(stdout) == 0 && fgets(line, sizeof line, stdin) != NULL, "standard input");
}

static ssh_channel channel(void)
{
    ssh_channel made = ssh_channel_new(session);
    require(made && ssh_channel_open_session(made) == SSH_OK, "opening a channel");
    return made;
}

static void run(ssh_channel on, const char *command)
{
    char said[4096];
    int n;
    require(ssh_channel_request_exec(on, command) == SSH_OK, "starting the command");
    while ((n = ssh_channel_read(on, said, sizeof said, 0)) > 0)
        fwrite(said, 1, (size_t)n, stdout);
    printf("status %d\n", ssh_channel_get_exit_status(on));
    ssh_channel_close(on);
    ssh_channel_free(on);
}

int main(int argc, char **argv)
{
    int port = argc == 5 ? atoi(argv[1]) : 0;
    long timeout_s = 30;
    ssh_key key;
    alarm(90); /* should the server never answer */
    session = ssh_new();
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, argv[2]);
    ssh_options_set(session, SSH_OPTIONS_TIMEOUT, &timeout_s);
    require(ssh_connect(session) == SSH_OK, "connecting");
    require(ssh_pki_import_privkey_file(argv[3], NULL, NULL, NULL, &key) == SSH_OK, "the key");
    require(ssh_userauth_publickey(session, NULL, key) == SSH_AUTH_SUCCESS, "logging in");

    ssh_channel idle = channel();
    run(channel(), argv[4]);
    step("one beside it");
    for (int i = 0; i < 20; i++) {
        ssh_channel closed = channel();
        ssh_channel_close(closed);
        ssh_channel_free(closed);
    }
    run(channel(), argv[4]);
    step("twenty came and went");
    require(ssh_channel_is_open(idle) && !ssh_channel_is_eof(idle), "the server closed the idle channel");
    run(idle, argv[4]);
    step("then it was used");
    channel();
    step("gone with one open"); /* Whoever ends this process sees to that. */
    return 0;
}
