import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { after, before, describe, test } from 'node:test'
import { eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { listAt, onEngine, textAt, untilRunning, untilTasks } from './support/look.ts'

/** Asks a whoami server for its host's name, so often, each time by a connection of its own. */
async function answers(url: string, times: number): Promise<Set<string>> {
  const found = new Set<string>()
  for (let turn = 0; turn < times; turn++) {
    const answer = await fetch(url, {
      headers: { connection: 'close' },
      signal: AbortSignal.timeout(30_000),
    })
    found.add(textAt(await answer.json(), 'hostname') || textAt({}, ''))
  }
  return found
}

/** A host beyond this one: a namespace behind a cable, with a server in it. */
async function openOutsideWorld(): Promise<AsyncDisposable & { readonly address: string }> {
  const address = '198.51.100.2'
  const ip = async (line: string) => {
    const { code, stderr } = await run('ip', line.split(' '))
    if (code !== 0) throw new Error(`ip ${line}: ${stderr}`)
  }
  const server =
    "require('node:http').createServer((_, answer) => answer.end('outside'))" +
    ".listen(80, () => console.log('up'))"
  const close = async (): Promise<void> => {
    await run('ip', ['link', 'del', 'e2eworld0'])
    await run('ip', ['netns', 'del', 'e2e-world'])
  }
  await close()
  await ip('netns add e2e-world')
  await ip('link add e2eworld0 type veth peer name e2eworld1 netns e2e-world')
  await ip('addr add 198.51.100.1/24 dev e2eworld0')
  await ip('link set e2eworld0 up')
  await ip(`-n e2e-world addr add ${address}/24 dev e2eworld1`)
  await ip('-n e2e-world link set e2eworld1 up')
  const child = spawn('ip', ['netns', 'exec', 'e2e-world', process.execPath, '-e', server])
  await new Promise((done) => child.stdout.once('data', done))
  return {
    address,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await close()
    },
  }
}

const reply = (text: string) => text.trim().split(/\s+/)

describe('the network of one node', () => {
  let daemon: TestDaemon
  let client = ''
  before(async () => {
    daemon = await startDaemon()
    await daemon.ok('network', 'create', '-d', 'overlay', '--attachable', 'e2e-front')
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'web', '--replicas', '3'],
      ...[
        '--network',
        'name=e2e-front,alias=site',
        '--hostname',
        'web-{{.Task.Slot}}',
        'whoami:v1',
      ],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'client', '--network', 'e2e-front', '--init'],
      ...['--stop-grace-period', '1s', 'alpine', 'sleep', '3600'],
    )
    await untilRunning(daemon, 'web', 3)
    const [task] = await untilRunning(daemon, 'client', 1)
    client = task?.containerId ?? ''
    await hasAddresses('tasks.web', 3)
  })
  after(async () => {
    await onEngine('rm', '-f', 'e2e-plain', 'e2e-later').catch(() => '')
    await daemon[Symbol.asyncDispose]()
  })

  const inside = (...args: string[]) => onEngine('exec', client, ...args)
  const addressesOf = async (name: string) =>
    reply(await inside('sh', '-c', `getent ahostsv4 ${name} | awk '{print $1}' | sort -u`))

  /** Tasks run a little before the node is told to send them connections, and to name them. */
  const hasAddresses = (name: string, count: number) =>
    eventually(`${count} addresses of ${name}`, async () => {
      const found = await addressesOf(name)
      return found.length === count && found
    })

  test('a service has one address, its tasks have theirs, and an alias is the same', async () => {
    const { body } = await daemon.api('GET', '/services/web')
    const vip = textAt(listAt(body, 'Endpoint', 'VirtualIPs')[0], 'Addr').split('/')[0]
    assert.deepEqual(await addressesOf('web'), [vip])
    assert.deepEqual(await addressesOf('site'), [vip])
    const tasks = await hasAddresses('tasks.web', 3)
    assert.ok(!tasks.includes(vip ?? ''))
    await assert.rejects(inside('getent', 'hosts', 'nosuchname'))
  })

  test('the virtual address reaches every task, and only healthy ones', async () => {
    const names = async () => {
      const text = await inside(
        ...['sh', '-c', 'for i in $(seq 30); do curl -s -m 30 http://web/json; echo; done'],
      )
      return new Set(text.match(/web-\d/g))
    }
    assert.equal((await names()).size, 3)
    await daemon.ok('service', 'scale', '-d', 'web=2')
    await untilRunning(daemon, 'web', 2)
    await hasAddresses('tasks.web', 2)
    assert.equal((await names()).size, 2)
    await daemon.ok('service', 'scale', '-d', 'web=3')
    await untilRunning(daemon, 'web', 3)
    await hasAddresses('tasks.web', 3)
    assert.equal((await names()).size, 3)
  })

  test('a service reaches itself by its own virtual address', async () => {
    const [task] = await untilRunning(daemon, 'web', 3)
    for (let turn = 0; turn < 4; turn++) {
      const text = await onEngine(
        'exec',
        task?.containerId ?? '',
        '/whoami',
        'get',
        'http://web/json',
      )
      assert.match(text, /web-\d/)
    }
  })

  test('dnsrr gives the tasks themselves', async () => {
    await daemon.ok(
      ...[
        'service',
        'create',
        '-d',
        '--name',
        'round',
        '--replicas',
        '2',
        '--endpoint-mode',
        'dnsrr',
      ],
      ...['--network', 'e2e-front', 'whoami:v1'],
    )
    await untilRunning(daemon, 'round', 2)
    await hasAddresses('round', 2)
    assert.match(await inside('curl', '-s', '-m', '30', 'http://round/'), /./)
    await daemon.ok('service', 'rm', 'round')
    await eventually('the name to be gone', () =>
      inside('getent', 'hosts', 'round').then(
        () => false,
        () => true,
      ),
    )
  })

  test('a task that is not healthy gets no traffic', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'soon', '--network', 'e2e-front'],
      ...['--health-cmd', 'test -e /healthy', '--health-interval', '300ms'],
      ...['--health-retries', '100000', 'busybox', 'sh', '-c'],
      'mkdir /www; echo here >/www/index.html; exec httpd -f -p 80 -h /www',
    )
    const [starting] = await untilTasks(
      daemon,
      'soon',
      'a start',
      ([task]) => task?.state === 'starting' && task.containerId !== '',
    )
    assert.deepEqual((await addressesOf('tasks.soon').catch(() => [''])).filter(Boolean), [])
    await onEngine('exec', starting?.containerId ?? '', 'touch', '/healthy')
    await untilRunning(daemon, 'soon', 1)
    await eventually('its answer', () =>
      inside('curl', '-sf', '-m', '10', 'http://soon/').then(
        () => true,
        () => false,
      ),
    )
    await daemon.ok('service', 'rm', 'soon')
  })

  test('networks are apart; an internal one has no way out', async () => {
    await using world = await openOutsideWorld()
    await daemon.ok(
      'network',
      'create',
      '-d',
      'overlay',
      '--internal',
      '--subnet',
      '10.210.3.0/24',
      'e2e-in',
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'hidden', '--network', 'e2e-in', '--init'],
      ...['--stop-grace-period', '1s', 'alpine', 'sleep', '3600'],
    )
    const [task] = await untilRunning(daemon, 'hidden', 1)
    await assert.rejects(
      inside('getent', 'hosts', 'hidden'),
      'another network does not know the name',
    )
    const id = task?.containerId ?? ''
    await assert.rejects(onEngine('exec', id, 'getent', 'hosts', 'web'))
    assert.match(await onEngine('exec', id, 'ip', '-4', 'addr'), /10\.210\.3\.\d+/)
    const url = `http://${world.address}/`
    assert.equal(await inside('curl', '-s', '-m', '30', url), 'outside')
    await assert.rejects(onEngine('exec', id, 'curl', '-s', '-m', '2', url))
    const used = await daemon.docker('network', 'rm', 'e2e-in')
    assert.match(used.stderr, /in use/)
    await daemon.ok('service', 'rm', 'hidden')
    await daemon.ok('network', 'rm', 'e2e-in')
  })

  test('a container of docker run joins an attachable network', async () => {
    await daemon.ok(
      ...['run', '-d', '--init', '--name', 'e2e-plain', '--network', 'e2e-front', 'alpine'],
      ...['sleep', '600'],
    )
    await eventually('an answer of web', () =>
      onEngine('exec', 'e2e-plain', 'curl', '-sf', '-m', '2', 'http://web/').then(
        () => true,
        () => false,
      ),
    )
    await daemon.ok('rm', '-f', 'e2e-plain')
    const closed = await daemon.docker('network', 'create', '-d', 'overlay', 'e2e-closed')
    assert.equal(closed.code, 0)
    const refused = await daemon.docker('run', '--rm', '--network', 'e2e-closed', 'alpine', 'true')
    assert.notEqual(refused.code, 0)
    assert.match(refused.stderr, /not manually attachable/)
    await daemon.ok('network', 'rm', 'e2e-closed')
  })

  test('a container that is connected later resolves names if it was started with the gateway as its nameserver', async () => {
    const format = '{{range .IPAM.Config}}{{.Gateway}}{{end}}'
    const gateway = (await daemon.ok('network', 'inspect', '-f', format, 'e2e-front')).trim()
    await daemon.ok(
      ...['run', '-d', '--init', '--name', 'e2e-later', '--dns', gateway, 'alpine', 'sleep', '600'],
    )
    await daemon.ok('network', 'connect', 'e2e-front', 'e2e-later')
    await eventually('an answer of web', () =>
      onEngine('exec', 'e2e-later', 'curl', '-sf', '-m', '2', 'http://web/').then(
        () => true,
        () => false,
      ),
    )
    await daemon.ok('rm', '-f', 'e2e-later')
  })

  test('a published port answers on every address of the host, and moves on update', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'open', '--replicas', '2', '-p', '18932:80'],
      ...['--hostname', 'open-{{.Task.Slot}}', '--update-monitor', '100ms', 'whoami:v1'],
    )
    await untilRunning(daemon, 'open', 2)
    const addresses = ['127.0.0.1', 'localhost']
    for (const one of Object.values(networkInterfaces()).flat()) {
      if (one?.family === 'IPv4' && !one.internal && !/^(172|10\.)/.test(one.address)) {
        addresses.push(one.address)
      }
    }
    for (const address of addresses) {
      const seen = await eventually(`an answer on ${address}`, async () => {
        try {
          return await answers(`http://${address}:18932/json`, 12)
        } catch {
          return undefined
        }
      })
      assert.ok(seen.size >= 1)
    }
    assert.match(await daemon.ok('service', 'ls'), /\*:18932->80\/tcp/)
    const taken = await daemon.docker(
      ...['service', 'create', '-d', '--name', 'second', '-p', '18932:80', 'whoami:v1'],
    )
    assert.match(
      taken.stderr,
      /port '18932' is already in use by service 'open' \(\w+\) as an ingress port/,
    )
    await daemon.ok(
      ...['service', 'update', '-d', '--publish-rm', '80', '--publish-add', '18933:80', 'open'],
    )
    await eventually('the new port', () =>
      answers('http://127.0.0.1:18933/json', 1).then(
        () => true,
        () => false,
      ),
    )
    await eventually('the old port to be closed', () =>
      answers('http://127.0.0.1:18932/json', 1).then(
        () => false,
        () => true,
      ),
    )
    await daemon.ok('service', 'rm', 'open')
  })

  const echo = [
    'import socket',
    's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)',
    "s.bind(('', 5353))",
    'while True:',
    '    data, peer = s.recvfrom(2048)',
    '    s.sendto(data, peer)',
  ].join('\n')

  test('udp, host mode, and a port that is given out', async () => {
    await daemon.ok(
      ...[
        'service',
        'create',
        '-d',
        '--name',
        'udp',
        '-p',
        '18934:5353/udp',
        '--entrypoint',
        'python3',
      ],
      ...['my-registry.com/api:1.0.0', '-c', echo],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'host', '-p'],
      ...['mode=host,target=80,published=18935', 'whoami:v1'],
    )
    await daemon.ok('service', 'create', '-d', '--name', 'given', '-p', '80', 'whoami:v1')
    for (const service of ['udp', 'host', 'given']) await untilRunning(daemon, service, 1)

    const socket = createSocket('udp4')
    try {
      const echoed = new Promise<string>((done) => socket.once('message', (m) => done(String(m))))
      const again = setInterval(() => socket.send('ping', 18934, '127.0.0.1'), 200)
      const text = await Promise.race([
        echoed,
        new Promise<string>((done) => setTimeout(() => done('nothing'), 120_000).unref()),
      ])
      clearInterval(again)
      assert.match(text, /ping/)
    } finally {
      socket.close()
    }
    const isServed = (at: number) =>
      eventually(`an answer on port ${at}`, () =>
        answers(`http://127.0.0.1:${at}/json`, 1).catch(() => undefined),
      )
    await isServed(18_935)
    assert.match(await daemon.ok('service', 'ps', 'host'), /\*:18935->80\/tcp/)
    const { body } = await daemon.api('GET', '/services/given')
    const [port] = listAt(body, 'Endpoint', 'Ports')
    const number = Number(
      typeof port === 'object' && port !== null && Reflect.get(port, 'PublishedPort'),
    )
    assert.ok(number >= 30_000 && number <= 32_767, `${number}`)
    await isServed(number)

    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'host2', '-p'],
      ...['mode=host,target=80,published=18935', 'whoami:v1'],
    )
    await untilTasks(daemon, 'host2', 'a reason', (tasks) =>
      /host-mode port already in use on 1 node/.test(tasks[0]?.error ?? ''),
    )
    await daemon.ok('service', 'rm', 'udp', 'host', 'host2', 'given')
  })

  test('everything works on while the daemon is dead', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'dead', '-p', '18936:80', 'whoami:v1')
    await untilRunning(daemon, 'dead', 1)
    // The node reports that it runs, and then is told to send it connections.
    await eventually('an answer', () =>
      answers('http://127.0.0.1:18936/json', 1).catch(() => undefined),
    )
    await daemon.kill9()
    await answers('http://127.0.0.1:18936/json', 5)
    assert.match(await inside('curl', '-s', '-m', '30', 'http://web/'), /./)
    assert.equal((await addressesOf('tasks.web')).length, 3)
    await daemon.start()
    await answers('http://127.0.0.1:18936/json', 5)
    await daemon.ok('service', 'rm', 'dead')
  })
})
