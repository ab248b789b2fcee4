/* A relay that speaks TLS 1.2 to one client, and nothing to a server behind it: renegotiates CERTIFICATE KEY PORT. In the
 * middle of all that the server says it asks the client to negotiate anew. It prints its own port, and a line each time that
 * the client waits for the next step of a negotiation. */
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(is_so)                                     \
    do {                                                 \
        if (!(is_so)) {                                  \
            fprintf(stderr, "not so: %s\n", #is_so);     \
            exit(1);                                     \
        }                                                \
    } while (0)

/* Passes on what the client says, if it says something; false at its end. To read is to take part in a negotiation, too. */
static int pass_on(SSL *tls, int server) {
    char bytes[16384];
    int count = SSL_read(tls, bytes, sizeof bytes);
    if (count <= 0) return SSL_get_error(tls, count) == SSL_ERROR_WANT_READ;
    CHECK(write(server, bytes, count) == count);
    return 1;
}

static struct sockaddr_in here(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    CHECK(SSL_CTX_use_certificate_file(context, argv[1], SSL_FILETYPE_PEM) == 1);
    CHECK(SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) == 1);
    CHECK(SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION) == 1);
    /* After a negotiation there may be nothing for the server. */
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);

    struct sockaddr_in address = here(0);
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), server = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    char bytes[16384];
    int client = accept(listener, NULL, NULL);
    CHECK(read(client, bytes, 8) == 8 && write(client, "S", 1) == 1);
    SSL *tls = SSL_new(context);
    CHECK(SSL_set_fd(tls, client) == 1 && SSL_accept(tls) == 1);
    address = here(atoi(argv[3]));
    CHECK(connect(server, (struct sockaddr *)&address, sizeof address) == 0);

    struct pollfd either[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
    for (;;) {
        if (SSL_pending(tls) == 0) CHECK(poll(either, 2, -1) > 0);
        if ((either[0].revents || SSL_pending(tls) > 0) && !pass_on(tls, server)) return 0;
        if (either[1].revents) {
            int count = read(server, bytes, sizeof bytes), half = (count + 1) / 2;
            if (count <= 0) return 0;
            CHECK(SSL_write(tls, bytes, half) == half);
            usleep(20000);
            CHECK(SSL_renegotiate(tls) == 1 && SSL_do_handshake(tls) == 1);
            usleep(20000);
            puts("negotiating");
            fflush(stdout);
            usleep(20000);
            /* While it negotiates, OpenSSL lets a client that has something to send receive nothing else. */
            while (SSL_renegotiate_pending(tls))
                if (!pass_on(tls, server)) return 0;
            if (count > half) CHECK(SSL_write(tls, bytes + half, count - half) == count - half);
        }
    }
}
