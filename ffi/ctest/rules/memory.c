/* Each allocation of a session refused in turn, from castkeep_config_new to the end: the call answers, nothing ends the process, and
 * nothing is left behind. Linked with a library whose names of the allocator are changed to those below.
 *
 *   memory RECORDER
 *
 * The second time round an agent names the recorder: a child, which answers every question alike. */
#include "rules.h"
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static long count, refuse_at, live;

static int refused(void) { return ++count == refuse_at; }
void *counted_malloc(size_t size);
void *counted_malloc(size_t size) {
    void *block = refused() ? NULL : malloc(size);
    live += block != NULL;
    return block;
}
void *counted_calloc(size_t n, size_t size);
void *counted_calloc(size_t n, size_t size) {
    void *block = refused() ? NULL : calloc(n, size);
    live += block != NULL;
    return block;
}
void *counted_realloc(void *block, size_t size);
void *counted_realloc(void *block, size_t size) {
    void *other = refused() ? NULL : realloc(block, size);
    live += block == NULL && other != NULL;
    return other;
}
int counted_posix_memalign(void **out, size_t align, size_t size);
int counted_posix_memalign(void **out, size_t align, size_t size) {
    int answer = refused() ? 12 : posix_memalign(out, align, size);
    live += answer == 0;
    return answer;
}
void counted_free(void *block);
void counted_free(void *block) {
    live -= block != NULL;
    free(block);
}

static struct sockaddr_un agent_at;
static int asks;

/* Until it is killed. A session holds its question open, so each connection has a child of its own. */
static void agent(int listener, const char *recorder) {
    char line[256], answer[512], question[4096];
    int length = snprintf(line, sizeof line,
                          "{\"verdict\":\"accept\",\"message\":\"hello\",\"recorders\":[{\"address\":\"%s\"}],\"rejectMessage\":\"none\","
                          "\"identity\":{\"node\":\"n\",\"nodeID\":\"i\",\"tags\":[\"tag:a\"],\"by\":\"registry\"}}\n", recorder);
    snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", (unsigned)length, line);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) _exit(1);
        if (fork() == 0) {
            if (read(fd, question, sizeof question) > 0 && write(fd, answer, strlen(answer)) > 0)
                while (read(fd, question, sizeof question) > 0) {
                }
            _exit(0);
        }
        close(fd);
    }
}

static int set_policy(castkeep_config *config) {
    char at[128];
    int length = snprintf(at, sizeof at, "unix:%s", agent_at.sun_path);
    int32_t status = castkeep_config_set_text(config, CASTKEEP_OPTION_POLICY, at, (size_t)length);
    return status ? status : castkeep_config_set_number(config, CASTKEEP_OPTION_POLICY_WAIT_MS, 300);
}

/* 0 untouched, 1 something was answered with a failure; every other end is a defect. */
static int scenario(const char *recorder) {
    castkeep_config *config = closed_config(recorder);
    castkeep_client *client = NULL;
    castkeep_session *session = NULL, *which;
    int32_t status = CASTKEEP_STATUS_NO_MEMORY, event = CASTKEEP_EVENT_NONE;
    const char *step = "config";
    double by = seconds() + 20;
    int touched = 1, running = 0;
    if (!config) goto out;
    castkeep_config_set_number(config, CASTKEEP_OPTION_START_LIMIT_MS, 3000);
    step = "policy";
    if (asks && (status = set_policy(config))) goto out;
    step = "client_new";
    if ((status = castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client))) goto out;
    step = "session_new";
    if ((status = castkeep_session_new(client, &session))) goto out;
    step = "set_text";
    if ((status = castkeep_session_set_text(session, CASTKEEP_TEXT_COMMAND, "memory", 6))) goto out;
    if ((status = castkeep_session_set_text(session, CASTKEEP_TEXT_TERM, "xterm", 5))) goto out;
    if (asks && (status = castkeep_session_set_text(session, CASTKEEP_TEXT_SOURCE_ADDRESS, "192.0.2.7:22", 12))) goto out;
    step = "open";
    if ((status = castkeep_session_open(session))) goto out;
    step = NULL;
    while (event != CASTKEEP_EVENT_FINISHED && event != CASTKEEP_EVENT_REFUSED && event != CASTKEEP_EVENT_INCOMPLETE) {
        struct pollfd fd = {castkeep_client_fd(client), POLLIN, 0};
        poll(&fd, 1, 100);
        if (seconds() > by) {
            printf("      allocation %ld: it hangs\n", refuse_at);
            return 3;
        }
        /* Of what happens inside only that there is an answer is asked. */
        if (castkeep_client_process(client) != 0) goto out;
        if (castkeep_client_next_event(client, &event, &which) != 0) goto out;
        if (event == CASTKEEP_EVENT_START) {
            running = 1;
            status = say(session, "hello\r\n");
            castkeep_session_marker(session, "here", 4);
            castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0);
            castkeep_session_finish(session);
        }
    }
    touched = event != CASTKEEP_EVENT_FINISHED || !running || status != 0;
out:
    castkeep_session_free(session);
    castkeep_client_free(client);
    castkeep_config_free(config);
    if (step && status != CASTKEEP_STATUS_NO_MEMORY) {
        printf("      allocation %ld: %s answers %s\n", refuse_at, step, castkeep_status_str(status));
        return 3;
    }
    if (live != 0) {
        printf("      allocation %ld: %ld blocks are left\n", refuse_at, live);
        return 3;
    }
    return touched;
}

static void each(const char *recorder) {
    long n, failing = 0, total;
    count = live = refuse_at = 0;
    HOLDS(scenario(recorder) == 0);
    total = count;
    HOLDS(total > 20);
    for (n = 1; n <= total; n++) {
        int status;
        pid_t child;
        fflush(stdout);
        child = fork();
        if (child == 0) {
            count = live = 0;
            refuse_at = n;
            status = scenario(recorder);
            fflush(stdout);
            _exit(status);
        }
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) > 1) {
            if (WIFSIGNALED(status)) printf("      allocation %ld of %ld: signal %d\n", n, total, WTERMSIG(status));
            part_failures++;
        } else {
            failing += WEXITSTATUS(status);
        }
    }
    HOLDS(failing > total / 2);
    printf("      %ld allocations, of which %ld, refused, were told\n", total, failing);
    part(asks ? "the same while an agent names the recorder" : "each allocation refused in turn: an answer, no abort, nothing left");
}

int main(int argc, char **argv) {
    pid_t child;
    int listener;
    if (argc != 2) return 64;
    each(argv[1]);
    if (!castkeep_has(CASTKEEP_CAP_POLICY)) return failures != 0;
    agent_at.sun_family = AF_UNIX;
    snprintf(agent_at.sun_path, sizeof agent_at.sun_path, "/tmp/castkeep-memory-%ld.sock", (long)getpid());
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&agent_at, sizeof agent_at) != 0 || listen(listener, 64) != 0) return 65;
    fflush(stdout);
    child = fork();
    if (child == 0) agent(listener, argv[1]);
    asks = 1;
    each(argv[1]);
    kill(child, SIGKILL);
    unlink(agent_at.sun_path);
    return failures != 0;
}
