"""A recorder that is slow: throttle.py PORT TO-PORT BYTES_PER_SECOND [DELAY]. What comes in on PORT is passed on at that rate, answers
at once; the first bytes of a connection wait for DELAY seconds."""

import socket
import sys
import threading
import time


def passes(source, sink, rate, delay):
    time.sleep(delay)
    try:
        while data := source.recv(4096):
            sink.sendall(data)
            if rate:
                time.sleep(len(data) / rate)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    port, to, rate = map(int, sys.argv[1:4])
    delay = float(sys.argv[4]) if len(sys.argv) > 4 else 0
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        near, _ = listener.accept()
        # What is under way between the two must not be large against what the client keeps.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        far = socket.create_connection(("127.0.0.1", to))
        threading.Thread(target=passes, args=(near, far, rate, delay), daemon=True).start()
        threading.Thread(target=passes, args=(far, near, 0, 0), daemon=True).start()


main()
