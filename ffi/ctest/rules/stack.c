/* How deep the stack gets, for hosts whose threads have little: a thread whose stack is painted does all that a session needs, and what
 * is left of the paint is measured.
 *
 *   stack RECORDER DRIVER MOST_BYTES [PIN]        DRIVER as in castkeep.h
 *   stack FILE 0 MOST_BYTES                       castkeep_config_load */
#define _GNU_SOURCE
#include "rules.h"
#include <pthread.h>
#include <sys/mman.h>

#define STACK_BYTES (1 << 20)
#define PAINT 0xa5

static char **arguments;
static int with_pin;

static void *host(void *unused) {
    int32_t driver = atoi(arguments[2]);
    castkeep_config *config = driver ? closed_config(arguments[1]) : NULL;
    castkeep_client *client = NULL;
    castkeep_session *session;
    char why[64];
    uint8_t bytes[512];
    int n;
    memset(bytes, 0xe2, sizeof bytes);
    if (driver == 0) {
        castkeep_config_free(config);
        IS(castkeep_config_load(arguments[1], strlen(arguments[1]), why, sizeof why, &config), CASTKEEP_STATUS_CONFIG);
        return unused;
    }
    if (with_pin) IS(castkeep_config_set_text(config, CASTKEEP_OPTION_TLS_PIN, arguments[4], strlen(arguments[4])), CASTKEEP_STATUS_OK);
    IS(castkeep_config_check(config, why, sizeof why), CASTKEEP_STATUS_OK);
    IS(castkeep_client_new(config, driver, &client), CASTKEEP_STATUS_OK);
    castkeep_config_free(config);
    session = running(client, "stack");
    for (n = 0; n < 200; n++) {
        if (driver == CASTKEEP_DRIVER_POLLED)
            while (castkeep_session_room(session) < sizeof bytes)
                if (!until(client, CASTKEEP_EVENT_ROOM)) hopeless("room", CASTKEEP_STATUS_TIMED_OUT);
        IS(castkeep_session_output(session, n % 2 ? CASTKEEP_STDOUT : CASTKEEP_STDERR, bytes, sizeof bytes), CASTKEEP_STATUS_OK);
        IS(castkeep_client_process(client), CASTKEEP_STATUS_OK);
    }
    IS(castkeep_session_resize(session, 100, 30), CASTKEEP_STATUS_OK);
    IS(castkeep_session_marker(session, "here", 4), CASTKEEP_STATUS_OK);
    ended(session);
    castkeep_client_free(client);
    return unused;
}

int main(int argc, char **argv) {
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned char *stack;
    size_t left = 0, most;
    char text[100];
    if (argc < 4) return 64;
    arguments = argv;
    with_pin = argc > 4;
    most = strtoul(argv[3], NULL, 10);
    stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) return 64;
    memset(stack, PAINT, STACK_BYTES);
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstack(&attributes, stack, STACK_BYTES) != 0 ||
        pthread_create(&thread, &attributes, host, NULL) != 0 || pthread_join(thread, NULL) != 0)
        hopeless("a thread", 0);
    while (left < STACK_BYTES && stack[left] == PAINT) left++;
    /* What the C library keeps at the top of it (thread-local data) and the host's own frame are in the figure. */
    HOLDS(STACK_BYTES - left <= most);
    snprintf(text, sizeof text, "stack of the caller: %lu bytes, at most %lu", (unsigned long)(STACK_BYTES - left), (unsigned long)most);
    part(text);
    return failures != 0;
}
