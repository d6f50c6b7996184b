/* A server that never closes what it accepts, and its clients, which do, one after the other. Stays until its standard input is closed. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static int checked(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

NOINLINE int take_and_forget(int listener) {
    int taken = checked(accept(listener, 0, 0), "accept");
    /* Not the last thing that it does: a tail call would leave no frame. */
    return taken + (taken == -9);
}

int main(int argc, char **argv) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    addr.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    int listener = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
    checked(bind(listener, (struct sockaddr *)&addr, sizeof addr), "bind");
    checked(listen(listener, 16), "listen");
    for (int i = 0; i < 30; i++) {
        int client = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
        checked(connect(client, (struct sockaddr *)&addr, sizeof addr), "connect");
        take_and_forget(listener);
        close(client);
        usleep(150000);
    }
    while (getchar() != EOF) {
    }
    return 0;
}
