/* What minimal.c is compared with. */
#include <poll.h>
#include <stddef.h>

int main(int argc, char **argv) {
    (void)argv;
    return poll(NULL, 0, argc);
}
