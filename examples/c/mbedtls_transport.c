/* Records over the TLS of mbedTLS: for hosts that have a TLS library already and want no second one.
 *
 *     cc mbedtls_transport.c $(pkg-config --cflags --libs castkeep) -lmbedtls -lmbedx509 -lmbedcrypto -o mbedtls_transport
 *     seq 1000 | ./mbedtls_transport 192.0.2.7:443 rec.example recorders.pem
 *
 * The recorder's certificate has to be for the name and by one of the authorities of the file. The library needs no TLS of its own for
 * it, so the tiny one will do. */
#define _GNU_SOURCE
#include "pipe.h"
#include <arpa/inet.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

/* What all connections share. */
struct tls {
    const char *name;
    mbedtls_x509_crt authorities;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_ssl_config config;
};
struct link {
    int fd, connected, wants_write;
    mbedtls_ssl_context ssl;
};

static int send_some(void *of, const unsigned char *data, size_t len) {
    ssize_t n = send(((struct link *)of)->fd, data, len, MSG_NOSIGNAL);
    return n >= 0 ? (int)n : errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE : -1;
}
static int receive_some(void *of, unsigned char *buf, size_t len) {
    ssize_t n = recv(((struct link *)of)->fd, buf, len, 0);
    return n >= 0 ? (int)n : errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ : -1;
}

/* mbedTLS says what it waits for by the number that it returns; `wants` is asked for it later. */
static int waits(struct link *link, int n) {
    link->wants_write = n == MBEDTLS_ERR_SSL_WANT_WRITE;
    return n == MBEDTLS_ERR_SSL_WANT_WRITE || n == MBEDTLS_ERR_SSL_WANT_READ;
}

/* A connection that has begun; NULL when there can be none. */
static struct link *dial(struct tls *tls, const char *address, size_t len) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    char text[64] = "", *port;
    struct link *link;
    memcpy(text, address, len < sizeof text ? len : sizeof text - 1); /* it does not end in NUL */
    if (!(port = strrchr(text, ':'))) return NULL;
    *port++ = '\0';
    to.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (inet_pton(AF_INET, text, &to.sin_addr) != 1 || !(link = calloc(1, sizeof *link))) return NULL;
    mbedtls_ssl_init(&link->ssl);
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (mbedtls_ssl_setup(&link->ssl, &tls->config) == 0 && mbedtls_ssl_set_hostname(&link->ssl, tls->name) == 0 && link->fd >= 0 &&
        (connect(link->fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS)) {
        mbedtls_ssl_set_bio(&link->ssl, link, send_some, receive_some, NULL);
        return link;
    }
    if (link->fd >= 0) close(link->fd);
    mbedtls_ssl_free(&link->ssl);
    free(link);
    return NULL;
}

/* Called until it says OK or fails: connecting, then the handshake, as far as it goes without waiting. */
static int32_t start(void *user, const char *address, size_t len, void **out) {
    struct link *link = *out;
    struct pollfd ready;
    char why[256];
    int n, error = 0;
    socklen_t size = sizeof error;
    if (!link) {
        link = *out = dial(user, address, len);
        if (!link) return CASTKEEP_STATUS_CLOSED;
        link->wants_write = 1;
    }
    if (!link->connected) {
        ready = (struct pollfd){link->fd, POLLOUT, 0};
        if (poll(&ready, 1, 0) == 0) return CASTKEEP_STATUS_WOULD_BLOCK;
        if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return CASTKEEP_STATUS_CLOSED;
        link->connected = 1;
    }
    n = mbedtls_ssl_handshake(&link->ssl);
    if (waits(link, n)) return CASTKEEP_STATUS_WOULD_BLOCK;
    if (n == 0) return CASTKEEP_STATUS_OK;
    mbedtls_strerror(n, why, sizeof why);
    fprintf(stderr, "TLS: %s\n", why);
    return CASTKEEP_STATUS_CLOSED;
}

static int64_t receive(void *user, void *of, uint8_t *buf, size_t len) {
    struct link *link = of;
    int n = mbedtls_ssl_read(&link->ssl, buf, len);
    (void)user;
    if (n > 0) return n;
    /* The end counts only when the peer says so inside of TLS: anybody can close a TCP connection. */
    return waits(link, n) ? CASTKEEP_STATUS_WOULD_BLOCK : n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY ? 0 : CASTKEEP_STATUS_CLOSED;
}

static int64_t transmit(void *user, void *of, const uint8_t *data, size_t len) {
    struct link *link = of;
    int n = mbedtls_ssl_write(&link->ssl, data, len);
    (void)user;
    if (n > 0) return n;
    return waits(link, n) ? CASTKEEP_STATUS_WOULD_BLOCK : CASTKEEP_STATUS_CLOSED;
}

static int32_t wants(void *user, void *of, int32_t more, int *fd) {
    struct link *link = of;
    (void)user;
    *fd = link->fd;
    return (more || link->wants_write ? CASTKEEP_WANTS_WRITE : 0) | (link->connected ? CASTKEEP_WANTS_READ : 0);
}

static void finish(void *user, void *of, int32_t abort) {
    struct link *link = of;
    (void)user;
    /* The alert that ends a connection in order; without it the recorder knows that something is missing. */
    if (!abort) mbedtls_ssl_close_notify(&link->ssl);
    close(link->fd);
    mbedtls_ssl_free(&link->ssl);
    free(link);
}

static int set_up(struct tls *tls, const char *name, const char *file) {
    tls->name = name;
    mbedtls_x509_crt_init(&tls->authorities);
    mbedtls_entropy_init(&tls->entropy);
    mbedtls_ctr_drbg_init(&tls->random);
    mbedtls_ssl_config_init(&tls->config);
    if (mbedtls_x509_crt_parse_file(&tls->authorities, file) != 0 ||
        mbedtls_ctr_drbg_seed(&tls->random, mbedtls_entropy_func, &tls->entropy, NULL, 0) != 0 ||
        mbedtls_ssl_config_defaults(&tls->config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        return -1;
    mbedtls_ssl_conf_ca_chain(&tls->config, &tls->authorities, NULL);
    mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &tls->random);
    return 0;
}

int main(int argc, char **argv) {
    static const castkeep_transport table = {sizeof table, start, receive, transmit, wants, finish};
    static struct tls tls; /* lives as long as the client */
    castkeep_config *config = castkeep_config_new();
    int32_t status;
    int exit_code;
    if (argc != 4) return give_up("usage", "mbedtls_transport ADDRESS:PORT NAME AUTHORITIES.pem <INPUT");
    if (set_up(&tls, argv[2], argv[3]) != 0) return give_up(argv[3], "no certificates, or no memory");
    if (!config || (status = castkeep_config_set_transport(config, &table, &tls)) ||
        (status = castkeep_config_add_recorder(config, argv[1], strlen(argv[1]))))
        return give_up(argv[1], config ? castkeep_status_str(status) : "no memory");
    exit_code = record_pipe(config, "mbedtls_transport");
    mbedtls_ssl_config_free(&tls.config);
    mbedtls_ctr_drbg_free(&tls.random);
    mbedtls_entropy_free(&tls.entropy);
    mbedtls_x509_crt_free(&tls.authorities);
    return exit_code;
}
