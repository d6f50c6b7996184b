/* Opens sockets by connect() and accept() in functions of known names: `open both|exit|many PORT`. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT __attribute__((noipa))

static int checked(int result)
{
	if (result < 0)
		_exit(1);
	return result;
}

KEPT int open_upstream(const struct sockaddr_in *to)
{
	char request[300];
	memset(request, 'x', sizeof request);
	int fd = checked(socket(AF_INET, SOCK_STREAM, 0));
	checked(connect(fd, (const struct sockaddr *)to, sizeof *to));
	checked(request[(unsigned char)request[0]] == 0);
	return fd;
}

KEPT int take_client(int listener)
{
	int fd = checked(accept(listener, NULL, NULL));
	checked(fd);
	return fd;
}

KEPT int serve(int listener, const struct sockaddr_in *to)
{
	int client = open_upstream(to);
	int server = take_client(listener);
	close(client);
	close(server);
	return client != server;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])) };
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = checked(socket(AF_INET, SOCK_STREAM, 0));
	int on = 1;
	checked(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	checked(bind(listener, (struct sockaddr *)&at, sizeof at));
	checked(listen(listener, 16));
	if (strcmp(argv[1], "exit") == 0) {
		open_upstream(&at);
		_exit(0);
	}
	int rounds = strcmp(argv[1], "many") == 0 ? 3000 : 1;
	while (rounds-- > 0)
		checked(serve(listener, &at));
	/* Until standard input ends. */
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
