/* A daemon's view of a fault inside the library: the call says so, and the program goes on. Linked and run by ci/link. */
#include <castkeep.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* In a build with test-hooks only, therefore in no header. */
int32_t castkeep_test_panic(void);
#ifdef SECOND
int second_panic(void);
#endif

static int failed;

static void check(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s\n", what);
        failed = 1;
    }
}

static void *in_thread(void *arg)
{
    (void)arg;
    check(castkeep_test_panic() == CASTKEEP_STATUS_INTERNAL, "a fault in a thread is answered by INTERNAL");
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int round;

    check(castkeep_version_num() == CASTKEEP_VERSION_NUM, "header and library are the same version");
    for (round = 0; round < 3; round++) {
        check(castkeep_test_panic() == CASTKEEP_STATUS_INTERNAL, "a fault is answered by INTERNAL");
#ifdef SECOND
        check(second_panic() == 1, "the other library stops its own fault");
#endif
    }
    if (pthread_create(&thread, NULL, in_thread, NULL) != 0 || pthread_join(thread, NULL) != 0)
        check(0, "a thread runs");
    check(strcmp(castkeep_status_str(CASTKEEP_STATUS_OK), "ok") == 0, "calls are answered afterwards");
    if (!failed)
        puts("went on");
    return failed;
}
