/*
 * delay-wire A B DELAY_MS LOSS_PERCENT JITTER_MS
 *   Carries frames between two interfaces, late and with losses, for kernels without sch_netem. Each direction takes the
 *   whole delay, so a round trip grows by twice as much. Frames keep their order. Prints "up", then runs until a signal.
 * delay-wire offload INTERFACE...
 *   Turns segmentation and checksum offload off: frames that are carried have to be whole and finished.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

enum { frames_max = 20000, burst_max = 256 };

struct frame {
  int64_t due_ns;
  int length;
  struct frame *next;
  unsigned char bytes[];
};

struct direction {
  int from, to, count;
  struct frame *first, *last;
};

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int without_offload(const char *name) {
  static const uint32_t features[] = {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM, ETHTOOL_SGRO};
  int handle = socket(AF_INET, SOCK_DGRAM, 0), failed = 0;
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    struct ethtool_value value = {features[i], 0};
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_data = (char *)&value;
    if (ioctl(handle, SIOCETHTOOL, &request) && errno != EOPNOTSUPP) {
      perror(name);
      failed = 1;
    }
  }
  close(handle);
  return failed;
}

static int open_interface(const char *name) {
  int handle = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), one = 1, buffer_bytes = 8 << 20;
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex(name)};
  struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
  setsockopt(handle, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one);
  setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
  setsockopt(handle, SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
  if (!address.sll_ifindex || bind(handle, (void *)&address, sizeof address) ||
      setsockopt(handle, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all)) {
    perror(name);
    exit(1);
  }
  return handle;
}

static void receive(struct direction *way, int64_t now, int64_t delay, int64_t jitter, double loss) {
  static unsigned char buffer[65536];
  for (int burst = 0; burst < burst_max; burst++) {
    int length = recv(way->from, buffer, sizeof buffer, 0);
    if (length <= 0) return;
    if (way->count >= frames_max || (loss > 0 && drand48() < loss)) continue;
    struct frame *frame = malloc(sizeof *frame + length);
    if (!frame) exit(1);
    frame->due_ns = now + delay + (jitter ? (int64_t)((drand48() * 2 - 1) * jitter) : 0);
    if (way->last && frame->due_ns < way->last->due_ns) frame->due_ns = way->last->due_ns;
    frame->length = length;
    frame->next = NULL;
    memcpy(frame->bytes, buffer, length);
    if (way->last) way->last->next = frame;
    else way->first = frame;
    way->last = frame;
    way->count++;
  }
}

static void deliver(struct direction *way, int64_t now) {
  while (way->first && way->first->due_ns <= now) {
    struct frame *frame = way->first;
    ssize_t sent = send(way->to, frame->bytes, frame->length, 0);
    (void)sent; /* a full queue loses frames, as wires do */
    way->first = frame->next;
    if (!way->first) way->last = NULL;
    way->count--;
    free(frame);
  }
}

int main(int count, char **words) {
  if (count > 2 && !strcmp(words[1], "offload")) {
    int failed = 0;
    for (int i = 2; i < count; i++) failed |= without_offload(words[i]);
    return failed;
  }
  if (count != 6) {
    fprintf(stderr, "usage: delay-wire A B DELAY_MS LOSS_PERCENT JITTER_MS | delay-wire offload INTERFACE...\n");
    return 2;
  }
  int64_t delay = (int64_t)(atof(words[3]) * 1e6), jitter = (int64_t)(atof(words[5]) * 1e6);
  double loss = atof(words[4]) / 100;
  int a = open_interface(words[1]), b = open_interface(words[2]);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct direction ways[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
  srand48(now_ns());
  puts("up");
  fflush(stdout);
  for (;;) {
    struct pollfd polled[3] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {timer, POLLIN, 0}};
    poll(polled, 3, -1);
    uint64_t expirations;
    ssize_t got = read(timer, &expirations, sizeof expirations);
    (void)got;
    int64_t now = now_ns(), next = 0;
    for (int i = 0; i < 2; i++) {
      receive(&ways[i], now, delay, jitter, loss);
      deliver(&ways[i], now);
      if (ways[i].first && (!next || ways[i].first->due_ns < next)) next = ways[i].first->due_ns;
    }
    struct itimerspec wake = {.it_value = {next / 1000000000LL, next % 1000000000LL}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &wake, 0);
  }
}
