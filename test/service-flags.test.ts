import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import {
  at,
  inspectContainer,
  listAt,
  onEngine,
  textAt,
  untilRunning,
  untilTasks,
} from './support/look.ts'

/** What `service create` was given becomes true of the container that the engine runs. */
describe('every flag of service create', () => {
  let daemon: TestDaemon
  let folder = ''
  before(async () => {
    daemon = await startDaemon()
    folder = await mkdtemp('/tmp/skep-flags-')
    await writeFile(join(folder, 'env'), 'FROM_FILE=yes\n')
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
    await onEngine('volume', 'rm', '-f', 'e2e-flags-volume')
    await rm(folder, { recursive: true, force: true })
  })

  test('reaches the container', async () => {
    const node = await daemon.ok('node', 'inspect', '-f', '{{.Description.Hostname}}', 'self')
    const created = await daemon.docker(
      ...['service', 'create', '-d', '--no-resolve-image', '--name', 'flags', '--replicas', '1'],
      ...['--env', 'PLAIN=1', '--env', 'NODE={{.Node.Hostname}}', '--env', 'SLOT={{.Task.Slot}}'],
      ...['--env', 'SERVICE={{.Service.Name}}', '--env', 'TASK={{.Task.Name}}'],
      ...['--env-file', join(folder, 'env')],
      ...['--label', 'on=service', '--container-label', 'on=container'],
      ...['--hostname', '{{.Service.Name}}-{{.Task.Slot}}'],
      ...['--user', '1000:1001', '--group', '2000', '--workdir', '/tmp'],
      ...['--entrypoint', '/bin/sleep'],
      ...['--mount', 'type=volume,source=e2e-flags-volume,target=/volume,volume-label=on=volume'],
      ...['--mount', `type=bind,source=${folder},target=/bind,readonly,bind-propagation=rprivate`],
      ...['--mount', 'type=tmpfs,target=/scratch,tmpfs-size=1048576,tmpfs-mode=1770'],
      ...['--dns', '192.0.2.53', '--dns-search', 'example.org', '--dns-option', 'ndots:2'],
      ...['--host', 'other:192.0.2.9'],
      ...['--cap-add', 'NET_ADMIN', '--cap-drop', 'CHOWN'],
      ...['--sysctl', 'net.ipv4.ip_unprivileged_port_start=0'],
      ...['--ulimit', 'nofile=1234:2345', '--init', '--read-only', '--tty'],
      ...['--stop-signal', 'SIGINT', '--stop-grace-period', '3s'],
      ...['--log-driver', 'json-file', '--log-opt', 'max-size=1m', '--log-opt', 'max-file=2'],
      ...['--limit-cpu', '0.5', '--limit-memory', '64M', '--limit-pids', '50'],
      ...['--reserve-cpu', '0.1', '--reserve-memory', '16M'],
      ...['--health-cmd', 'test -d /scratch', '--health-interval', '7s'],
      ...['--health-timeout', '2s', '--health-retries', '4', '--health-start-period', '1s'],
      ...['--restart-condition', 'on-failure', '--restart-delay', '1s'],
      ...['--restart-max-attempts', '3', '--restart-window', '60s'],
      ...['--update-parallelism', '2', '--update-delay', '1s', '--update-monitor', '2s'],
      ...['--update-failure-action', 'rollback', '--update-max-failure-ratio', '0.2'],
      ...['--update-order', 'start-first'],
      ...['--rollback-parallelism', '3', '--rollback-delay', '2s', '--rollback-monitor', '3s'],
      ...['--rollback-failure-action', 'continue', '--rollback-max-failure-ratio', '0.3'],
      ...['--rollback-order', 'start-first'],
      ...['--constraint', 'node.role==manager', '--placement-pref', 'spread=node.labels.zone'],
      ...['--replicas-max-per-node', '4', '--isolation', 'default', '--endpoint-mode', 'vip'],
      ...['alpine', '600'],
    )
    assert.equal(created.code, 0, created.stderr)
    const [task] = await untilRunning(daemon, 'flags', 1)
    assert.ok(task)
    const container = await inspectContainer(task.containerId)

    assert.equal(textAt(container, 'Name'), `/flags.1.${task.id}`)
    const config = at(container, 'Config')
    const env = listAt(config, 'Env')
    for (const line of [
      ...['PLAIN=1', `NODE=${node}`, 'SLOT=1', 'SERVICE=flags', 'FROM_FILE=yes'],
      `TASK=flags.1.${task.id}`,
    ]) {
      assert.ok(env.includes(line), `${line} in ${env.join(' ')}`)
    }
    assert.equal(at(config, 'Labels', 'on'), 'container')
    assert.equal(at(config, 'Labels', 'com.docker.swarm.service.name'), 'flags')
    assert.equal(at(config, 'Labels', 'com.docker.swarm.task.id'), task.id)
    assert.equal(at(config, 'Hostname'), 'flags-1')
    assert.equal(at(config, 'User'), '1000:1001')
    assert.equal(at(config, 'WorkingDir'), '/tmp')
    assert.deepEqual(listAt(config, 'Entrypoint'), ['/bin/sleep'])
    assert.deepEqual(listAt(config, 'Cmd'), ['600'])
    assert.equal(at(config, 'Tty'), true)
    assert.equal(at(config, 'StopSignal'), 'SIGINT')
    assert.deepEqual(listAt(config, 'Healthcheck', 'Test'), ['CMD-SHELL', 'test -d /scratch'])
    assert.equal(at(config, 'Healthcheck', 'Interval'), 7_000_000_000)
    assert.equal(at(config, 'Healthcheck', 'Retries'), 4)

    const host = at(container, 'HostConfig')
    assert.deepEqual(listAt(host, 'GroupAdd'), ['2000'])
    assert.ok(listAt(host, 'Dns').includes('192.0.2.53'))
    assert.ok(listAt(host, 'DnsSearch').includes('example.org'))
    assert.ok(listAt(host, 'DnsOptions').includes('ndots:2'))
    assert.ok(listAt(host, 'ExtraHosts').includes('other:192.0.2.9'))
    assert.match(String(listAt(host, 'CapAdd')), /NET_ADMIN/)
    assert.match(String(listAt(host, 'CapDrop')), /CHOWN/)
    assert.equal(at(host, 'Sysctls', 'net.ipv4.ip_unprivileged_port_start'), '0')
    assert.deepEqual(listAt(host, 'Ulimits'), [{ Name: 'nofile', Hard: 2345, Soft: 1234 }])
    assert.equal(at(host, 'Init'), true)
    assert.equal(at(host, 'ReadonlyRootfs'), true)
    assert.deepEqual(at(host, 'LogConfig'), {
      Type: 'json-file',
      Config: { 'max-file': '2', 'max-size': '1m' },
    })
    assert.equal(at(host, 'NanoCpus'), 500_000_000)
    assert.equal(at(host, 'Memory'), 64 * 1024 * 1024)
    assert.equal(at(host, 'PidsLimit'), 50)
    assert.equal(at(host, 'MemoryReservation'), 16 * 1024 * 1024)
    assert.match(textAt(host, 'RestartPolicy', 'Name'), /^(no)?$/, 'Skep restarts, not the engine')

    const mounts = new Map(
      listAt(container, 'Mounts').map((one) => [textAt(one, 'Destination'), one]),
    )
    assert.equal(at(mounts.get('/volume'), 'Name'), 'e2e-flags-volume')
    assert.equal(at(mounts.get('/bind'), 'RW'), false)
    assert.equal(at(mounts.get('/bind'), 'Source'), folder)
    assert.equal(at(mounts.get('/scratch'), 'Type'), 'tmpfs')
    assert.match(await onEngine('volume', 'inspect', 'e2e-flags-volume'), /"on": "volume"/)

    // The service says what it was told.
    const pretty = await daemon.ok('service', 'inspect', '--pretty', 'flags')
    for (const line of [
      /Name:\s+flags/,
      /on=service/,
      /Replicas:\s+1/,
      /Constraints:\s+\[node\.role==manager\]/,
      /Parallelism:\s+2/,
      /On failure:\s+rollback/,
      /Max failure ratio: 0\.2/,
      /Update order:\s+start-first/,
      /Parallelism:\s+3/,
      /On failure:\s+continue/,
      /Image:\s+alpine:latest/,
      /Init:\s+true/,
      /CPU:\s+0\.5/,
      /Memory:\s+64MiB/,
    ]) {
      assert.match(pretty, line)
    }
    const spec = at((await daemon.api('GET', '/services/flags')).body, 'Spec')
    assert.equal(at(spec, 'TaskTemplate', 'RestartPolicy', 'MaxAttempts'), 3)
    assert.equal(at(spec, 'TaskTemplate', 'RestartPolicy', 'Window'), 60_000_000_000)
    assert.equal(at(spec, 'TaskTemplate', 'Placement', 'MaxReplicas'), 4)
    await daemon.ok('service', 'rm', 'flags')
  })

  /** Waits until another task than `old` holds the first slot. */
  const untilOther = (count: number, old: string | undefined) =>
    eventually('another task', async () => {
      const tasks = await untilRunning(daemon, 'change', count)
      return tasks[0]?.id !== old && tasks
    })

  test('of service update replaces what it names and keeps the rest', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'change', '--env', 'A=1', '--env', 'B=2'],
      ...['--label', 'l=1', '--container-label', 'c=1', '--host', 'a:192.0.2.1'],
      ...['--mount', 'type=tmpfs,target=/one', '--constraint', 'node.role==manager'],
      ...['--update-monitor', '100ms', '--limit-memory', '32M', 'whoami:v1'],
    )
    const [first] = await untilRunning(daemon, 'change', 1)
    await daemon.ok(
      ...['service', 'update', '-d', '--env-rm', 'A', '--env-add', 'C=3', '--label-add', 'm=2'],
      ...['--container-label-rm', 'c', '--container-label-add', 'd=2', '--host-rm', 'a'],
      ...[
        '--host-add',
        'b:192.0.2.2',
        '--mount-rm',
        '/one',
        '--mount-add',
        'type=tmpfs,target=/two',
      ],
      ...['--user', '5', '--args', 'sleep', '--limit-memory', '48M', '--hostname', 'new'],
      ...['--stop-grace-period', '2s', '--dns-add', '192.0.2.3', '--init', '--read-only', 'change'],
    )
    const [second] = await untilOther(1, first?.id)
    const container = await inspectContainer(second?.containerId ?? '')
    const env = listAt(container, 'Config', 'Env')
    assert.ok(!env.includes('A=1') && env.includes('B=2') && env.includes('C=3'))
    assert.equal(at(container, 'Config', 'Labels', 'c'), undefined)
    assert.equal(at(container, 'Config', 'Labels', 'd'), '2')
    assert.equal(at(container, 'Config', 'User'), '5')
    assert.equal(at(container, 'Config', 'Hostname'), 'new')
    assert.deepEqual(listAt(container, 'HostConfig', 'ExtraHosts'), ['b:192.0.2.2'])
    assert.deepEqual(
      listAt(container, 'Mounts').map((mount) => textAt(mount, 'Destination')),
      ['/two'],
    )
    assert.equal(at(container, 'HostConfig', 'Memory'), 48 * 1024 * 1024)
    assert.equal(at(container, 'HostConfig', 'ReadonlyRootfs'), true)
    const labels = at((await daemon.api('GET', '/services/change')).body, 'Spec', 'Labels')
    assert.deepEqual(labels, { l: '1', m: '2' })

    // A label of the service itself, or a scale, touches no container.
    await daemon.ok('service', 'update', '-d', '--label-add', 'only=label', 'change')
    await daemon.ok('service', 'scale', '-d', 'change=2')
    const both = await untilRunning(daemon, 'change', 2)
    assert.equal(both[0]?.id, second?.id)
    // Force replaces all though nothing changed.
    await daemon.ok('service', 'update', '-d', '--force', '--update-parallelism', '0', 'change')
    await untilOther(2, both[0]?.id)
    await daemon.ok('service', 'rm', 'change')
  })

  test('what cannot be had is refused or warned about by name', async () => {
    const refusals: readonly (readonly [readonly string[], RegExp])[] = [
      [['--name', 'a b', 'whoami:v1'], /name must be valid as a DNS name component/],
      [['--name', `a${'b'.repeat(63)}`, 'whoami:v1'], /name must be 63 characters or fewer/],
      [['--name', 'bad', 'Not An Image'], /invalid reference format|not a valid repository\/tag/],
      [
        ['--name', 'bad', '--limit-cpu', '0.0001', 'whoami:v1'],
        /invalid cpu value 0\.0001: Must be at least 0\.001/,
      ],
      [
        ['--name', 'bad', '--limit-memory', '1000', 'whoami:v1'],
        /invalid memory value 1000: Must be at least 4MiB/,
      ],
      [
        [
          '--name',
          'bad',
          '--mount',
          'type=tmpfs,target=/x',
          '--mount',
          'type=tmpfs,target=/x',
          'whoami:v1',
        ],
        /duplicate mount point: \/x/i,
      ],
      [
        ['--name', 'bad', '--endpoint-mode', 'dnsrr', '-p', '8080:80', 'whoami:v1'],
        /port published with ingress mode can't be used with dnsrr mode/,
      ],
      [['--name', 'bad', '--constraint', 'node.role=manager', 'whoami:v1'], /constraint/],
      [['--name', 'bad', '--network', 'nosuch', 'whoami:v1'], /network nosuch not found/],
      [['--name', 'bad', '--secret', 'nosuch', 'whoami:v1'], /secret not found: nosuch/],
      [['--name', 'bad', '--config', 'nosuch', 'whoami:v1'], /config not found: nosuch/],
      [['--name', 'bad', '--env', 'X={{.Nope}}', 'whoami:v1'], /Nope/],
      [
        ['--name', 'bad', '--mode', 'replicated-job', '--update-delay', '1s', 'whoami:v1'],
        /update-delay|update and rollback configuration/i,
      ],
    ]
    for (const [args, message] of refusals) {
      const output = await daemon.docker('service', 'create', '-d', ...args)
      assert.notEqual(output.code, 0, `${args.join(' ')} was taken`)
      assert.match(output.stderr, message)
    }
    assert.equal(await daemon.ok('service', 'ls', '-q'), '')
    const warned = await daemon.docker(
      ...['service', 'create', '-d', '--name', 'odd', '--isolation', 'hyperv', 'whoami:v1'],
    )
    assert.match(warned.stderr, /isolation|hyperv/i, 'isolation of Windows is named')
    await daemon.docker('service', 'rm', 'odd')
  })

  test('a missing bind source, a missing image and a broken command say so', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'nobind', '--restart-condition', 'none'],
      ...['--mount', 'type=bind,source=/no/such/place,target=/x', 'whoami:v1'],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'noimage', '--restart-condition', 'none'],
      'nosuch.invalid/image:1',
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'nocommand', '--restart-condition', 'none'],
      ...['--entrypoint', '/no/such/program', 'whoami:v1'],
    )
    const failed = async (service: string, message: RegExp) => {
      await untilTasks(daemon, service, `${service} to say why`, (tasks) =>
        tasks.some((task) => /rejected|failed/.test(task.state) && message.test(task.error)),
      )
    }
    await failed('nobind', /bind source path does not exist: \/no\/such\/place/)
    await failed('noimage', /nosuch\.invalid\/image/)
    await failed('nocommand', /\/no\/such\/program/)
    await daemon.ok('service', 'rm', 'nobind', 'noimage', 'nocommand')
  })
})
