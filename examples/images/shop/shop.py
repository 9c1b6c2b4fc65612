"""The small applications behind the names that orchestration examples use, one role each.

    shop.py api         HTTP; POST /jobs queues work in Redis, GET /jobs counts it (needs REDIS_URL)
    shop.py worker      takes jobs from Redis and counts them as done
    shop.py producer    publishes a message to RabbitMQ every INTERVAL_MS
    shop.py consumer    takes messages from RabbitMQ, each acknowledged
    shop.py eventstore  keeps events in memory, on every member of its cluster
    shop.py projection  follows an event store and counts events by type

Every role answers on HTTP: / says who it is and what it has done, /health is 200 once what it
depends on answers and 503 with the reason before. It starts before its dependencies do. On SIGTERM
it ends what is in flight and exits 0.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

VERSION = os.environ.get('VERSION', 'dev')
PORTS = [int(port) for port in os.environ.get('PORTS', '8080').split(',')]
INTERVAL_S = int(os.environ.get('INTERVAL_MS', '500')) / 1000
HOSTNAME = socket.gethostname()
RETRY_S = 0.5
TIMEOUT_S = 2
BODY_BYTES_MAX = 65536
EVENTS_MAX = 10_000

stopping = threading.Event()


class Unavailable(Exception):
    """What this role depends on does not answer; the message says what and why."""


def dependency(variable, port):
    """Host and port of the address in an environment variable, such as redis://redis:6379."""
    address = os.environ.get(variable)
    if not address:
        raise Unavailable(f'{variable} is not set')
    parts = urlsplit(address)
    return parts.hostname, parts.port or port


class Redis:
    """The few commands used here, over the protocol of Redis (RESP)."""

    def __init__(self):
        self._stream = None
        self._lock = threading.Lock()

    def call(self, *words, wait_s=TIMEOUT_S):
        with self._lock:
            try:
                if self._stream is None:
                    address = dependency('REDIS_URL', 6379)
                    self._socket = socket.create_connection(address, TIMEOUT_S)
                    self._stream = self._socket.makefile('rwb', buffering=0)
                self._socket.settimeout(wait_s + TIMEOUT_S)
                encoded = [str(word).encode() for word in words]
                parts = [b'$%d\r\n%s\r\n' % (len(word), word) for word in encoded]
                self._stream.write(b'*%d\r\n' % len(parts) + b''.join(parts))
                return self._answer()
            except OSError as error:
                if self._stream is not None:
                    self._stream.close()
                    self._socket.close()
                    self._stream = None
                raise Unavailable(f'redis: {error}') from error

    def _line(self):
        line = b''
        while not line.endswith(b'\r\n'):
            byte = self._stream.read(1)
            if not byte:
                raise ConnectionError('the connection was closed')
            line += byte
        return line[:-2].decode()

    def _answer(self):
        line = self._line()
        kind, rest = line[0], line[1:]
        if kind == '-':
            raise Unavailable(f'redis: {rest}')
        if kind == ':':
            return int(rest)
        if kind == '+':
            return rest
        size = int(rest)
        if size < 0:
            return None
        if kind == '*':
            return [self._answer() for _ in range(size)]
        data = b''
        while len(data) < size + 2:
            data += self._stream.read(size + 2 - len(data))
        return data[:-2].decode()


class Role:
    """What one kind of application does beside answering on HTTP."""

    def __init__(self):
        self.trouble = 'starting'
        self.done = 0

    def run(self):
        """Works until it is told to stop; what it depends on may come and go."""
        while not stopping.is_set():
            try:
                self.work()
            except Unavailable as error:
                self.fail(error)
            except Exception as error:  # whatever the client library of a broker raises
                self.fail(f'{type(error).__name__}: {error}')

    def fail(self, why):
        self.trouble = str(why)
        stopping.wait(RETRY_S)

    def work(self):
        self.trouble = ''
        stopping.wait()

    def state(self):
        return {'done': self.done}

    def get(self, path):
        return None

    def post(self, path, body):
        return None


class Api(Role):
    def __init__(self):
        super().__init__()
        self.redis = Redis()

    def work(self):
        if 'REDIS_URL' in os.environ:
            self.redis.call('PING')
        self.trouble = ''
        stopping.wait(RETRY_S)

    def get(self, path):
        if path != '/jobs':
            return None
        return 200, {
            'queued': self.redis.call('LLEN', 'jobs'),
            'done': int(self.redis.call('GET', 'jobs:done') or 0),
            'by': self.redis.call('SMEMBERS', 'jobs:workers'),
        }

    def post(self, path, body):
        if path != '/jobs':
            return None
        self.redis.call('LPUSH', 'jobs', body)
        self.done += 1
        return 202, {'queued': True}


class Worker(Role):
    """A job is moved to a list of its own while it is worked on, so that one cut short is seen."""

    def __init__(self):
        super().__init__()
        self.redis = Redis()

    def work(self):
        mine = f'jobs:at:{HOSTNAME}'
        job = self.redis.call('BRPOPLPUSH', 'jobs', mine, 1, wait_s=1)
        self.trouble = ''
        if job is None:
            return
        self.redis.call('INCR', 'jobs:done')
        self.redis.call('SADD', 'jobs:workers', HOSTNAME)
        self.redis.call('DEL', mine)
        self.done += 1


class Broker(Role):
    queue = 'events'

    def channel(self):
        import pika  # only here: the other roles do without it

        connection = pika.BlockingConnection(pika.URLParameters(os.environ['RABBITMQ_URL']))
        channel = connection.channel()
        channel.queue_declare(self.queue, durable=True)
        return channel


class Producer(Broker):
    def work(self):
        channel = self.channel()
        channel.confirm_delivery()
        self.trouble = ''
        while not stopping.wait(INTERVAL_S):
            channel.basic_publish('', self.queue, f'{HOSTNAME} {self.done}'.encode())
            self.done += 1
        channel.connection.close()


class Consumer(Broker):
    def work(self):
        channel = self.channel()
        channel.basic_qos(prefetch_count=1)
        self.trouble = ''
        for method, _, _ in channel.consume(self.queue, inactivity_timeout=0.5):
            if method is not None:
                self.done += 1
                channel.basic_ack(method.delivery_tag)
            if stopping.is_set():
                break
        channel.connection.close()


class EventStore(Role):
    """One member: takes events, and passes each on to the members that its gossip seed names."""

    def __init__(self):
        super().__init__()
        self.events = []
        self.ids = set()
        self.changed = threading.Condition()

    def members(self):
        seed, _, port = os.environ.get('EVENTSTORE_GOSSIP_SEED', '').partition(':')
        if not seed:
            return []
        found = set()
        for name in (f'tasks.{seed}', seed):
            try:
                found = {entry[4][0] for entry in socket.getaddrinfo(name, int(port or 2113), socket.AF_INET)}
                break
            except OSError:
                continue
        own = {entry[4][0] for entry in socket.getaddrinfo(HOSTNAME, None, socket.AF_INET)}
        return [f'http://{address}:{port or 2113}' for address in sorted(found - own)]

    def work(self):
        wanted = int(os.environ.get('EVENTSTORE_CLUSTER_SIZE', '1'))
        members = self.members()
        for member in members:  # what was missed while this one was away
            try:
                with urlopen(f'{member}/events', timeout=TIMEOUT_S) as answer:
                    for event in json.load(answer)['events']:
                        self.keep(event)
            except OSError:
                continue
        have = len(members) + 1
        self.trouble = '' if have >= wanted else f'{have} of {wanted} members are there'
        stopping.wait(1)

    def keep(self, event):
        with self.changed:
            if event['id'] in self.ids or len(self.events) >= EVENTS_MAX:
                return False
            self.ids.add(event['id'])
            self.events.append(event)
            self.done += 1
            self.changed.notify_all()
            return True

    def get(self, path):
        return (200, {'events': self.events}) if path == '/events' else None

    def post(self, path, body):
        if path not in ('/events', '/replica'):
            return None
        event = json.loads(body)
        event.setdefault('id', os.urandom(8).hex())
        if self.keep(event) and path == '/events':
            for member in self.members():
                request = Request(f'{member}/replica', json.dumps(event).encode(), method='POST')
                try:
                    urlopen(request, timeout=TIMEOUT_S).close()
                except OSError:
                    continue  # it asks for what it missed
        return 201, {'id': event['id']}

    def serve_subscribers(self, port):
        """Over TCP, one JSON event a line, from the first on."""
        server = socket.create_server(('', port))
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self.feed, args=(connection,), daemon=True).start()

    def feed(self, connection):
        sent = 0
        with connection:
            while not stopping.is_set():
                with self.changed:
                    self.changed.wait_for(lambda: len(self.events) > sent, timeout=1)
                    new = self.events[sent:]
                try:
                    # An empty line tells a subscriber that the connection is alive.
                    lines = ''.join(json.dumps(event) + '\n' for event in new) or '\n'
                    connection.sendall(lines.encode())
                except OSError:
                    return
                sent += len(new)


class Projection(Role):
    def __init__(self):
        super().__init__()
        self.counts = {}

    def work(self):
        with socket.create_connection(dependency('EVENTSTORE_URL', 1113), TIMEOUT_S) as connection:
            connection.settimeout(5)
            self.counts = {}
            self.trouble = ''
            for line in connection.makefile('r'):
                if stopping.is_set():
                    return
                if line.strip():
                    kind = json.loads(line).get('type', 'event')
                    self.counts[kind] = self.counts.get(kind, 0) + 1
                    self.done += 1
        raise Unavailable('the event store closed the connection')

    def state(self):
        return {'done': self.done, 'counts': self.counts}


roles = {
    'api': Api,
    'worker': Worker,
    'producer': Producer,
    'consumer': Consumer,
    'eventstore': EventStore,
    'projection': Projection,
}


def handler_of(name, role):
    class Handler(BaseHTTPRequestHandler):
        server_version = f'shop/{VERSION}'
        timeout = 10  # seconds for a client to send its request

        def do_GET(self):
            if self.path == '/':
                return self.answer(200, {'role': name, 'version': VERSION, 'host': HOSTNAME, **role.state()})
            if self.path == '/health':
                trouble = role.trouble
                return self.answer(503 if trouble else 200, {'ok': not trouble, 'trouble': trouble})
            return self.route(lambda: role.get(self.path))

        def do_POST(self):
            size = int(self.headers.get('Content-Length', 0))
            if size > BODY_BYTES_MAX:
                return self.answer(413, {'error': f'a body may have {BODY_BYTES_MAX} bytes'})
            body = self.rfile.read(size).decode()
            return self.route(lambda: role.post(self.path, body))

        def route(self, handle):
            try:
                status, body = handle() or (404, {'error': f'there is no {self.command} {self.path}'})
            except Unavailable as error:
                status, body = 503, {'error': str(error)}
            except ValueError as error:
                status, body = 400, {'error': str(error)}
            return self.answer(status, body)

        def answer(self, status, body):
            data = (json.dumps(body) + '\n').encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    return Handler


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in roles:
        sys.exit(f'shop.py: a role is one of {", ".join(roles)}, not "{name}"')
    role = roles[name]()
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: stopping.set())
    for port in PORTS:
        server = ThreadingHTTPServer(('', port), handler_of(name, role))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if isinstance(role, EventStore):
        threading.Thread(target=role.serve_subscribers, args=(1113,), daemon=True).start()
    print(f'{name} {VERSION} answers on {", ".join(map(str, PORTS))}', flush=True)
    worker = threading.Thread(target=role.run, daemon=True)
    worker.start()
    while not stopping.is_set():
        time.sleep(0.1)  # signals are handled between
    worker.join(5)


main()
