import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, type Output, run } from './support/daemon.ts'
import { etcdIsMissing } from './support/etcd-cluster.ts'

const skip = (await whyNoLab()) ?? etcdIsMissing
const skep = resolve(import.meta.dirname, '../bin/skep')

/** Answers on all addresses, on the loopback alone, and says back what it is sent until that ends. */
const program = [
  'mkdir -p /www; echo hello >/www/index.html; dd if=/dev/zero of=/www/much bs=1000000 count=1',
  'httpd -p 8001 -h /www; httpd -p 127.0.0.1:8002 -h /www',
  'exec nc -ll -p 9000 -e cat',
].join('; ')

/** One word of a shell's line. */
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`

interface Forwarding {
  readonly child: ChildProcess
  readonly ports: readonly number[]
  readonly text: () => string
}

/** From the command line of one manager into a task on a worker whose session another manager has. */
describe('the ways into a task on another node', { skip, concurrency: false }, () => {
  let lab: Lab
  let leader: LabHost
  let manager: LabHost
  let worker: LabHost
  const running: ChildProcess[] = []

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    leader = lab.host(1)
    manager = lab.host(2)
    worker = lab.host(3)
    await formCluster(leader, { manager: [manager], worker: [worker] })
    await leader.skepDockerOk(
      ...['service', 'create', '-d', '--no-resolve-image', '--name', 'web', '--replicas', '2'],
      ...['--constraint', 'node.hostname==node3', '--init', 'busybox', 'sh', '-c', program],
    )
    await eventually('both tasks run', async () => {
      const all = await manager.skepDocker('service', 'ls', '--format', '{{.Replicas}}')
      return all.stdout.trim() === '2/2'
    })
    // A task runs as soon as its shell does.
    for (const task of ['web.1', 'web.2']) {
      await eventually(`the servers of ${task} listen`, async () => {
        const { stdout } = await shell(`$skep exec ${task} netstat -ltn`)
        return [':8001 ', ':8002 ', ':9000 '].every((port) => stdout.includes(port))
      })
    }
  })
  after(async () => {
    for (const child of running) child.kill('SIGKILL')
    await lab[Symbol.asyncDispose]()
  })

  /** The command line against the manager that does not lead, by the shell, so that pipes and terminals can be used. */
  function shell(script: string): Promise<Output> {
    return run('bash', ['-o', 'pipefail', '-c', script], {
      env: { SKEP_HOST: manager.api, skep },
      timeoutMs: 180_000,
    })
  }

  async function ok(script: string): Promise<string> {
    const { code, stdout, stderr } = await shell(script)
    assert.equal(code, 0, `${script}: ${stderr}`)
    return stdout.trim()
  }

  /** Starts a forwarding; resolves with the local ports once all listen. */
  async function forward(...args: readonly string[]): Promise<Forwarding> {
    const env = { ...process.env, SKEP_HOST: manager.api }
    const child = spawn(skep, ['port-forward', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    running.push(child)
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
    }
    const wanted = args.filter((arg) => arg.includes(':')).length
    const ports = await eventually('it listens', async () => {
      if (child.exitCode !== null) throw new Error(text)
      const found = [...text.matchAll(/^Forwarding 127\.0\.0\.1:(\d+) /gm)].map(([, port]) => port)
      return found.length === wanted && found.map(Number)
    })
    return { child, ports, text: () => text }
  }

  /** Sends all, says that this was all, and resolves with what came back. */
  async function echo(port: number, bytes: Buffer): Promise<Buffer> {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    socket.end(bytes)
    const parts: Buffer[] = []
    for await (const part of socket) parts.push(part)
    return Buffer.concat(parts)
  }

  test('a command: output, exit code, user, directory, variables', async () => {
    assert.equal(await ok('$skep exec web.2 hostname | wc -l'), '1')
    const { code, stdout, stderr } = await shell(
      "$skep exec -u nobody -w /www -e A=1 web sh -c 'pwd; id -un; echo $A; echo no >&2; exit 42'",
    )
    assert.deepEqual([code, stdout, stderr], [42, '/www\nnobody\n1\n', 'no\n'])
    // Engines differ in which of the two it is.
    assert.ok([126, 127].includes((await shell('$skep exec web nosuchprogram')).code))
    await ok('$skep exec -d web touch /tmp/made')
    await eventually('the command that was left running has run', async () => {
      return (await shell('$skep exec web test -e /tmp/made')).code === 0
    })
  })

  test('a command takes what is piped into it, every byte', async () => {
    assert.equal(await ok('echo x | $skep exec -i web cat'), 'x')
    const sums = await ok(
      `f=$(mktemp); head -c 5000000 /dev/urandom >$f; md5sum <$f; $skep exec -i web cat <$f | md5sum; rm $f`,
    )
    const [here, there] = sums.split('\n')
    assert.equal(here, there)
  })

  test('a command has a terminal of the size that this one has', async () => {
    // The size is told right after the command has begun.
    const sized = 'until [ "$(stty size 2>/dev/null)" = "33 77" ]; do sleep 0.1; done'
    const inside = `$skep exec -it web sh -c 'tty; ${sized}; stty size'`
    const script = `stty rows 33 cols 77; ${inside}`
    const text = await ok(`script -qec ${quoted(script)} /dev/null </dev/null`)
    assert.match(text, /\/dev\/pts\/\d+\r+\n[\s\S]*33 77/)
    const piped = await shell('echo x | $skep exec -it web cat')
    assert.match(piped.stderr, /the input is no terminal\. Leave out -t/)
  })

  test('names: a sentence for what is none, or several', async () => {
    const refusals: readonly (readonly [string, RegExp])[] = [
      ['nosuch', /there is no service or task nosuch\. List them/],
      ['web.7', /service web has no task web\.7\. It has web\.1, web\.2/],
      ['', /there is no service or task/],
    ]
    for (const [name, said] of refusals) {
      const { code, stderr } = await shell(`$skep exec '${name}' true`)
      assert.equal(code, 1)
      assert.match(stderr, said)
    }
    const id = await manager.skepDockerOk('service', 'ps', '-q', 'web')
    await ok(`$skep exec ${id.split('\n')[0]} true`)
    const onWorker = await worker.skep('exec', 'web', 'true')
    assert.match(onWorker.stderr, /Worker nodes can't be used to view or modify cluster state/)
  })

  test('files go in and out', async () => {
    await ok(
      `d=$(mktemp -d); cd $d; mkdir in; head -c 300000 /dev/urandom >in/a; ln -s a in/b;
       $skep cp in web.1:/tmp/ && $skep cp web.1:/tmp/in out && cmp in/a out/a && test -L out/b &&
       $skep cp web.1:/tmp/in/a - | tar -xO | cmp in/a -; e=$?; rm -r $d; exit $e`,
    )
  })

  test('a port: half-closed connections, much data, many at once', async () => {
    const { child, ports, text } = await forward('web.1', ':9000', ':8001', ':8002')
    const [echoPort = 0, anyPort, loopbackPort] = ports
    for (const port of [anyPort, loopbackPort]) {
      assert.equal(await ok(`curl -s http://127.0.0.1:${port}/`), 'hello')
    }
    const much = randomBytes(20_000_000)
    const back = await echo(echoPort, much)
    assert.equal(
      createHash('md5').update(back).digest('hex'),
      createHash('md5').update(much).digest('hex'),
    )
    // Busybox's netcat resets connections that come at once; its web server takes them.
    const page = Buffer.from('GET /much HTTP/1.0\r\n\r\n')
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => echo(anyPort ?? 0, page).then(({ length }) => length)),
    )
    assert.equal(new Set(answers).size, 1)
    assert.ok((answers[0] ?? 0) > 1_000_000)
    child.kill('SIGINT')
    const [code] = await once(child, 'exit')
    assert.equal(code, 130, text())
  })

  test('a reader that stands still holds the writer up', async () => {
    const { child, ports } = await forward('web.1', ':9000')
    const socket = connect({ host: '127.0.0.1', port: ports[0] ?? 0 })
    await once(socket, 'connect')
    socket.pause()
    const piece = Buffer.alloc(1_000_000)
    const isHeldUp = async (): Promise<boolean> => {
      while (socket.writableLength < 4 * piece.length) socket.write(piece)
      const before = socket.bytesWritten
      await new Promise((done) => setTimeout(done, 1_000))
      return socket.bytesWritten === before
    }
    await eventually('nothing more is taken', isHeldUp)
    assert.ok(socket.bytesWritten < 100_000_000, `${socket.bytesWritten} bytes were taken`)
    socket.destroy()
    child.kill('SIGINT')
    await once(child, 'exit')
  })

  test('a port that nobody listens on is told, and the next connection may work', async () => {
    const { child, ports, text } = await forward('web.1', ':81', ':9000')
    const [nobody = 0, echoPort = 0] = ports
    await assert.rejects(echo(nobody, Buffer.from('x')))
    await eventually('it is told', async () =>
      /nothing in the task listens on port 81/.test(text()),
    )
    assert.equal((await echo(echoPort, Buffer.from('x'))).toString(), 'x')
    child.kill('SIGINT')
    await once(child, 'exit')
  })

  test('managers and the node keep a record: who, what, which task, and no values', async () => {
    await ok('echo hidden-input | $skep exec -i -e KEY=hidden-value web cat')
    const id = /[0-9a-z]{25}/
    for (const log of [manager.log('daemon'), worker.log('daemon')]) {
      const lines = log.split('\n').filter((line) => line.includes('a call into a task'))
      const command = lines.find((line) => line.includes('nobody'))
      assert.ok(command, 'the command is in the record')
      assert.match(command, /"?run a command"?/)
      assert.match(command, /exit 42/)
      assert.match(command, id)
      assert.match(command, /the local socket/)
      assert.ok(lines.some((line) => line.includes('copy in')))
      assert.ok(lines.some((line) => line.includes('forward port 9000')))
      assert.doesNotMatch(log, /hidden-/)
    }
  })

  test('a forwarding ends with its task, and says so', async () => {
    const { child, ports, text } = await forward('web.2', ':9000')
    assert.equal((await echo(ports[0] ?? 0, Buffer.from('x'))).toString(), 'x')
    const ended = once(child, 'exit')
    await leader.skepDockerOk('service', 'rm', 'web')
    const [code] = await ended
    assert.equal(code, 1)
    assert.match(text(), /web\.2 has ended: /)
  })
})
