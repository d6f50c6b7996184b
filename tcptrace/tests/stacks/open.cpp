// Opens sockets by connect() and accept() in methods of known names: `open both PORT`.
#include <arpa/inet.h>
#include <cstdlib>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT __attribute__((noipa))

namespace net {
struct Upstream {
	sockaddr_in to;
	KEPT int open(const std::string &name) const;
};

int Upstream::open(const std::string &name) const
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, reinterpret_cast<const sockaddr *>(&to), sizeof to) != 0 || name.empty())
		_exit(1);
	return fd;
}

KEPT int take_client(int listener)
{
	int fd = accept(listener, nullptr, nullptr);
	if (fd < 0)
		_exit(1);
	return fd;
}
} // namespace net

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	net::Upstream upstream = {};
	upstream.to.sin_family = AF_INET;
	upstream.to.sin_port = htons(std::atoi(argv[2]));
	upstream.to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, reinterpret_cast<sockaddr *>(&upstream.to), sizeof upstream.to) != 0 || listen(listener, 16) != 0)
		return 1;
	int client = upstream.open(argv[0]);
	int server = net::take_client(listener);
	close(client);
	close(server);
	// Until standard input ends.
	char byte;
	while (read(0, &byte, 1) > 0) {
	}
	return 0;
}
