/* A name server that answers any question with one address, as fast as it can: dns_responder PORT.
 *
 * The load of benchmarks/dns.py: it must cost less than who asks. One question to a message, names without compression.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static uint8_t buffer[2048];
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct sockaddr_storage peer;
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 2 || sock < 0) return 2;
    address.sin_port = htons((uint16_t) atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(sock, (struct sockaddr *) &address, sizeof address) != 0) return 1;
    for (;;) {
        socklen_t size = sizeof peer;
        ssize_t got = recvfrom(sock, buffer, 512, 0, (struct sockaddr *) &peer, &size);
        if (got < 17) continue;
        size_t at = 12, end = (size_t) got;
        while (at < end && buffer[at] != 0) at += (size_t) buffer[at] + 1;
        if (at + 5 > end) continue;
        int is_aaaa = buffer[at + 2] == 28;
        at += 5;
        buffer[2] = 0x81; /* a response, recursion desired */
        buffer[3] = 0x80; /* recursion available, no error */
        memcpy(buffer + 6, "\0\1\0\0\0\0", 6);
        memcpy(buffer + at, is_aaaa ? "\300\14\0\34\0\1\0\0\1\54\0\20" : "\300\14\0\1\0\1\0\0\1\54\0\4", 12);
        at += 12;
        memcpy(buffer + at, is_aaaa ? "\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1" : "\300\0\2\1", is_aaaa ? 16 : 4);
        at += is_aaaa ? 16 : 4;
        sendto(sock, buffer, at, 0, (struct sockaddr *) &peer, size);
    }
}
