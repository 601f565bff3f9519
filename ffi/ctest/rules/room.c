/* Room is kept to the byte: as much as it says is taken whole, one byte more is refused whole and leaves nothing in the recording.
 * What was taken goes into FILE, for a comparison with the recording.
 *
 *   room RECORDER FILE */
#include "rules.h"

int main(int argc, char **argv) {
    static uint8_t bytes[1 << 20];
    castkeep_client *client;
    castkeep_session *session;
    FILE *taken;
    size_t rounds, i, full = 0;
    if (argc != 3 || !(taken = fopen(argv[2], "wb"))) return 64;
    client = client_of(argv[1], CASTKEEP_DRIVER_POLLED);
    session = running(client, "room");
    /* Bytes that take most room first: control characters, halves of UTF-8; then plain ones. */
    for (i = 0; i < sizeof bytes; i++) bytes[i] = i < sizeof bytes / 2 ? (uint8_t)"\033\377\0\342\202\"\\\n"[i % 8] : (uint8_t)('a' + i % 26);
    for (rounds = 0; rounds < 400; rounds++) {
        size_t room = castkeep_session_room(session), n = rounds % 3 ? room : room / 2;
        const uint8_t *from = bytes + (rounds * 7919) % (sizeof bytes / 2);
        if (room == 0) {
            full++;
            HOLDS(until(client, CASTKEEP_EVENT_ROOM));
            continue;
        }
        IS(castkeep_session_output(session, CASTKEEP_STDOUT, from, room + 1), CASTKEEP_STATUS_WOULD_BLOCK);
        IS(castkeep_session_room(session), room);
        if (n == 0) n = room;
        IS(castkeep_session_output(session, CASTKEEP_STDOUT, from, n), CASTKEEP_STATUS_OK);
        fwrite(from, 1, n, taken);
        if (part_failures > 3) break;
    }
    HOLDS(full > 3); /* else nothing was shown */
    fclose(taken);
    part("room is taken whole, and one byte more is refused whole");
    ended(session);
    castkeep_client_free(client);
    part("all of it is stored");
    return failures != 0;
}
