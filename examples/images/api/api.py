"""The api of the production stack: notes in PostgreSQL, a visit counter in Redis, over HTTP.

    GET  /        who answers, how many visits (Redis) and notes (PostgreSQL) there are
    GET  /notes   the last notes         POST /notes   keeps the body as a note (needs X-Api-Key)
    GET  /health  200 when both stores answer, else 503 with the reason

It starts before its stores do and says so on /health. On SIGTERM it takes no new request, ends
those in flight, and exits 0.
"""

import hmac
import json
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

VERSION = os.environ.get('VERSION', 'dev')
PORT = int(os.environ.get('PORT', '3000'))
DATABASE_HOST = os.environ.get('DATABASE_HOST', 'db')
DATABASE_USER = os.environ.get('DATABASE_USER', 'postgres')
DATABASE_NAME = os.environ.get('DATABASE_NAME', 'postgres')
DATABASE_PASSWORD_FILE = os.environ.get('DATABASE_PASSWORD_FILE', '/run/secrets/db_password')
API_KEY_FILE = os.environ.get('API_KEY_FILE', '/run/secrets/api_key')
REDIS_HOST = os.environ.get('REDIS_HOST', 'redis')

STORE_TIMEOUT_S = 2  # below the 3 s of the stack's health check
NOTE_BYTES_MAX = 4096
NOTES_SHOWN_MAX = 50
HOSTNAME = socket.gethostname()


def secret(path):
    with open(path, encoding='utf-8') as file:
        return file.read().strip()


class Unavailable(Exception):
    """A store does not answer; the message says which and why."""


class Store:
    """One connection to a store, opened when it is needed and again when it is lost."""

    name = ''
    lost = ()  # what the store's client raises when the connection is gone

    def __init__(self):
        self._lock = threading.Lock()
        self._connection = None

    def run(self, *request):
        """Answers one request. One that fails on a kept connection is sent once more on a new one."""
        with self._lock:
            for tries_left in (0,) if self._connection is None else (1, 0):
                try:
                    if self._connection is None:
                        self._connection = self.open()
                    return self.send(self._connection, *request)
                except self.lost as error:
                    if self._connection is not None:
                        self._connection.close()
                        self._connection = None
                    if tries_left == 0:
                        raise Unavailable(f'{self.name}: {str(error).strip()}') from error

    def open(self):
        raise NotImplementedError

    def send(self, connection, *request):
        raise NotImplementedError


class Database(Store):
    """PostgreSQL."""

    name = 'postgres'
    lost = (psycopg2.OperationalError, psycopg2.InterfaceError)

    def open(self):
        connection = psycopg2.connect(
            host=DATABASE_HOST,
            user=DATABASE_USER,
            dbname=DATABASE_NAME,
            password=secret(DATABASE_PASSWORD_FILE),
            connect_timeout=STORE_TIMEOUT_S,
            options=f'-c statement_timeout={STORE_TIMEOUT_S * 1000}',
            application_name=f'api {VERSION} on {HOSTNAME}',
        )
        with connection, connection.cursor() as cursor:
            # Several replicas start at once, and "if not exists" alone lets two of them collide.
            cursor.execute('select pg_advisory_xact_lock(3000)')
            cursor.execute(
                'create table if not exists notes (id bigserial primary key, text text not null,'
                ' host text not null, written timestamptz not null default now())'
            )
        return connection

    def send(self, connection, statement, values=()):
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()


class Redis(Store):
    """Redis, which speaks one line a value (RESP) for the commands that are used here."""

    name = 'redis'
    lost = (OSError,)

    def open(self):
        with socket.create_connection((REDIS_HOST, 6379), STORE_TIMEOUT_S) as connection:
            return connection.makefile('rwb', buffering=0)

    def send(self, connection, *words):
        parts = [f'*{len(words)}\r\n', *(f'${len(word)}\r\n{word}\r\n' for word in words)]
        connection.write(''.join(parts).encode('ascii'))
        answer = connection.readline().decode('ascii').strip()
        if answer == '':
            raise ConnectionError('the connection was closed')
        if answer.startswith('-'):
            raise Unavailable(f'redis: {answer[1:]}')
        return answer[1:]  # after "+" a word, after ":" a number


database = Database()
redis = Redis()


class Handler(BaseHTTPRequestHandler):
    server_version = f'api/{VERSION}'
    timeout = 10  # seconds for a client to send its request

    def do_GET(self):
        routes = {'/': self.home, '/health': self.health, '/notes': self.list_notes}
        self.route(routes.get(self.path))

    def do_POST(self):
        self.route({'/notes': self.add_note}.get(self.path))

    def route(self, handle):
        if handle is None:
            return self.answer(404, {'error': f'there is no {self.command} {self.path}'})
        try:
            return handle()
        except Unavailable as error:
            return self.answer(503, {'error': str(error)})

    def home(self):
        visits = int(redis.run('INCR', 'visits'))
        [[notes]] = database.run('select count(*) from notes')
        who = {'service': 'api', 'version': VERSION, 'hostname': HOSTNAME}
        self.answer(200, {**who, 'visits': visits, 'notes': notes})

    def health(self):
        redis.run('PING')
        database.run('select 1')
        self.answer(200, {'healthy': True})

    def list_notes(self):
        rows = database.run(
            'select id, text, host, written from notes order by id desc limit %s', [NOTES_SHOWN_MAX]
        )
        notes = [
            {'id': id, 'text': text, 'host': host, 'written': written.isoformat()}
            for id, text, host, written in rows
        ]
        self.answer(200, notes)

    def add_note(self):
        given = self.headers.get('X-Api-Key', '')
        if not hmac.compare_digest(given.encode(), secret(API_KEY_FILE).encode()):
            return self.answer(401, {'error': 'send the api key in the header X-Api-Key'})
        length = self.headers.get('Content-Length', '')
        if not length.isdigit():
            return self.answer(411, {'error': 'send the note as the body, with its Content-Length'})
        if int(length) > NOTE_BYTES_MAX:
            return self.answer(413, {'error': f'a note has at most {NOTE_BYTES_MAX} bytes'})
        try:
            text = self.rfile.read(int(length)).decode('utf-8').strip()
        except UnicodeDecodeError:
            return self.answer(400, {'error': 'a note is text in UTF-8'})
        if text == '' or '\0' in text:
            return self.answer(400, {'error': 'a note is a line of text, and not empty'})
        [[id]] = database.run(
            'insert into notes (text, host) values (%s, %s) returning id', [text, HOSTNAME]
        )
        return self.answer(201, {'id': id, 'text': text, 'host': HOSTNAME})

    def answer(self, status, body):
        payload = (json.dumps(body) + '\n').encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(payload)))
        self.send_header('X-Api-Version', VERSION)
        self.end_headers()
        self.wfile.write(payload)

    def log_request(self, code='-', size='-'):
        if self.path != '/health':
            print(f'{self.client_address[0]} {self.command} {self.path} {int(code)}', flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests in flight
    request_queue_size = 256


def main():
    server = Server(('', PORT), Handler)

    def stop(number, _frame):
        print(f'{signal.Signals(number).name}: ending', flush=True)
        # shutdown() waits for serve_forever(), which this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f'api {VERSION} listens on port {PORT}', flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


main()
