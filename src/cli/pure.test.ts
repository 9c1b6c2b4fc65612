import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../base/index.ts'
import type { ApiService, ApiTask } from './api.ts'
import { parseDaemonFlags } from './daemon-flags.ts'
import { formatBytes, formatDurationNs, humanDuration, table } from './output.ts'
import { parseDetails, sinceOf } from './service-logs.ts'
import {
  applyServiceFlags,
  emptySpec,
  parseFileReference,
  parseMount,
  parsePublish,
} from './service-spec.ts'
import { formatPorts } from './services.ts'
import { parseTemplate } from './template.ts'
import { progressOf } from './wait.ts'

describe('daemon flags', () => {
  test('the defaults are those of the manual', () => {
    assert.deepEqual(parseDaemonFlags({}), {
      dataRoot: '/var/lib/skep',
      runDir: '/run/skep',
      hosts: ['unix:///run/skep/docker.sock'],
      socketGroup: 'docker',
      engine: 'unix:///var/run/docker.sock',
      listenAddress: '0.0.0.0:2377',
      advertiseAddress: '',
      managers: [],
      http: '127.0.0.1:7780',
      logLevel: 'info',
    })
    assert.ok(Object.isFrozen(parseDaemonFlags({})))
  })

  const refused = [
    { dataRoot: 'here' },
    { host: ['tcp://0.0.0.0:2376'] },
    { host: ['fd://'] },
    { host: [`unix:///${'x'.repeat(120)}`] },
    { tlsCa: '/a' },
    { engine: 'ssh://x' },
    { host: ['unix:///var/run/docker.sock'] },
    { listenAddr: 'x' },
    { http: '1:99999' },
    { logLevel: 'loud' },
  ]
  for (const flags of refused) {
    test(`${JSON.stringify(flags).slice(0, 60)} is refused with what to do`, () => {
      assert.throws(
        () => parseDaemonFlags(flags),
        (error) => error instanceof UserError && error.next !== undefined,
      )
    })
  }
})

describe('templates', () => {
  const data = { A: { B: 'x', L: ['p', 'q'], N: 2, M: { 'k.v': 'z' } }, T: true }
  const cases = [
    ['{{.A.B}}', 'x'],
    ['{{ .A.L }} {{.A.M}}', '[p q] map[k.v:z]'],
    ['{{json .A.L}}', '["p","q"]'],
    ['{{index .A.M "k.v"}}{{.A.Missing}}', 'z<no value>'],
    ['{{join .A.L ","}}|{{.A.B | upper}}|{{len .A.L}}', 'p,q|X|2'],
    ['{{range .A.L}}<{{.}}>{{else}}none{{end}}', '<p><q>'],
    ['{{if .T}}y{{else}}n{{end}}{{if .F}}y{{else if .T}}e{{else}}n{{end}}!', 'ye!'],
    ['{{if eq .A.N 2}}two{{end}}{{with .A}}{{.B}}{{end}}', 'twox'],
    ['a\\t{{"}}"}}{{/* no */}}b', 'a\t}}b'],
    ['a {{- .A.B -}} b', 'axb'],
    ['{{json (index .A.L 1)}}', '"q"'],
  ] as const
  for (const [source, want] of cases) {
    test(source, () => assert.equal(parseTemplate(source)(data), want))
  }

  test('what is not understood is refused', () => {
    for (const source of [
      '{{',
      '{{nope .A}}',
      '{{if .A}}',
      '{{end}}',
      '{{.A..B}}',
      '{{}}',
      '{{.A)}}',
    ]) {
      assert.throws(() => parseTemplate(source), UserError, source)
    }
  })

  test('any text either renders or is refused in words', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.constantFrom(
            '{{',
            '}}',
            '.A',
            ' ',
            '"',
            'if',
            'end',
            'range',
            '(',
            ')',
            '|',
            'json',
            'x',
            '-',
          ),
        ),
        (parts) => {
          try {
            parseTemplate(parts.join(''))(data)
          } catch (error) {
            assert.ok(error instanceof UserError, String(error))
          }
        },
      ),
    )
  })
})

test('durations, sizes and tables look as docker shows them', () => {
  const spans = [
    [0, 'Less than a second'],
    [1000, '1 second'],
    [59_000, '59 seconds'],
    [60_000, 'About a minute'],
    [180_000, '3 minutes'],
    [3_600_000, 'About an hour'],
    [7_200_000, '2 hours'],
    [172_800_000, '2 days'],
    [1_209_600_000, '2 weeks'],
  ] as const
  for (const [ms, want] of spans) assert.equal(humanDuration(ms), want)
  assert.equal(formatDurationNs(90e9), '1m30s')
  assert.equal(formatDurationNs(3600e9), '1h0m0s')
  assert.equal(formatDurationNs(5e8), '500ms')
  assert.equal(formatBytes(536_870_912), '512MiB')
  assert.equal(
    table([
      ['A', 'B'],
      ['long', 'x'],
    ]),
    'A      B\nlong   x\n',
  )
})

test('neighbouring ports are one range, and host ports are left out', () => {
  const port = (PublishedPort: number, TargetPort: number, PublishMode = 'ingress') => ({
    Protocol: 'tcp',
    PublishedPort,
    TargetPort,
    PublishMode,
  })
  assert.equal(
    formatPorts([port(81, 91), port(80, 90), port(443, 443), port(1, 1, 'host')]),
    '*:80-81->90-91/tcp, *:443->443/tcp',
  )
})

describe('service flags', () => {
  const spec = emptySpec('nginx', [])

  test('the spec that is changed stays as it was', () => {
    const before = JSON.stringify(spec)
    applyServiceFlags(spec, { envAdd: ['A=1'], labelAdd: ['a=b'], publishAdd: ['80:80'] }, {})
    assert.equal(JSON.stringify(spec), before)
  })

  test('what is added can be removed again', () => {
    const added = applyServiceFlags(
      spec,
      {
        envAdd: ['A=1'],
        labelAdd: ['a=b'],
        containerLabelAdd: ['c'],
        publishAdd: ['8080:80', '53:53/udp'],
        mountAdd: ['type=tmpfs,target=/t,tmpfs-size=1k,tmpfs-mode=1777'],
        hostAdd: ['db:10.0.0.1'],
        dnsAdd: ['1.1.1.1'],
        ulimitAdd: ['nofile=1:2'],
        genericResourceAdd: ['gpu=2'],
        constraintAdd: ['a==b'],
        placementPrefAdd: ['spread=x'],
        networkAdd: ['n'],
        groupAdd: ['g'],
        sysctlAdd: ['a=b'],
      },
      {},
    )
    const removed = applyServiceFlags(
      added,
      {
        envRm: ['A'],
        labelRm: ['a'],
        publishRm: ['80', '53/udp'],
        mountRm: ['/t'],
        hostRm: ['db'],
        dnsRm: ['1.1.1.1'],
        ulimitRm: ['nofile'],
        constraintRm: ['a==b'],
        placementPrefRm: ['spread=x'],
        networkRm: ['n'],
        groupRm: ['g'],
      },
      {},
    )
    const { Env, Mounts, Hosts, Ulimits, Groups, DNSConfig } = removed.TaskTemplate.ContainerSpec
    assert.deepEqual(
      [Env, Mounts, Hosts, Ulimits, Groups, DNSConfig],
      [undefined, undefined, undefined, undefined, undefined, {}],
    )
    assert.deepEqual(removed.Labels, {})
    assert.deepEqual(removed.EndpointSpec, { Mode: 'vip' })
    assert.deepEqual(removed.TaskTemplate.Placement, {})
    assert.equal(removed.TaskTemplate.Networks, undefined)
  })

  test('an added capability is no longer dropped', () => {
    const dropped = applyServiceFlags(spec, { capDrop: ['chown', 'kill'] }, {})
    const { CapabilityAdd, CapabilityDrop } = applyServiceFlags(dropped, { capAdd: ['CHOWN'] }, {})
      .TaskTemplate.ContainerSpec
    assert.deepEqual([CapabilityAdd, CapabilityDrop], [['CAP_CHOWN'], ['CAP_KILL']])
  })

  test('a global service has no number of replicas', () => {
    assert.throws(() => applyServiceFlags(spec, { mode: 'global', replicas: '2' }, {}), UserError)
  })

  test('long forms are read, and slips refused', () => {
    assert.deepEqual(parsePublish('published=8080,target=80,protocol=udp,mode=host'), [
      { Protocol: 'udp', PublishMode: 'host', TargetPort: 80, PublishedPort: 8080 },
    ])
    assert.deepEqual(parseMount('type=volume,src=a,dst=/a,volume-opt=k=v,"volume-opt=o=a,b",ro'), {
      Type: 'volume',
      Source: 'a',
      Target: '/a',
      ReadOnly: true,
      VolumeOptions: { DriverConfig: { Options: { k: 'v', o: 'a,b' } } },
    })
    assert.equal(parseFileReference('--secret', 'source=a,target=b,mode=0440').file.Mode, 288)
    for (const text of [
      '',
      'type=x,target=/a',
      'type=bind,target=/a',
      'type=tmpfs,target=/a,volume-nocopy',
      'source=a',
    ]) {
      assert.throws(() => parseMount(text), UserError, text)
    }
    for (const text of ['', 'x', '1:2:3', 'target=0', '127.0.0.1:80:80', '70000:80']) {
      assert.throws(() => parsePublish(text), UserError, text)
    }
  })
})

test('a log line gives up the task it is of', () => {
  const details =
    'com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t,extra=1'
  assert.deepEqual(parseDetails(`${details} a b=c d\n`, false), {
    time: '',
    own: {
      'com.docker.swarm.node.id': 'n',
      'com.docker.swarm.service.id': 's',
      'com.docker.swarm.task.id': 't',
    },
    others: 'extra=1',
    text: 'a b=c d\n',
  })
  assert.equal(
    parseDetails(`2026-01-01T00:00:00Z ${details} x`, true)?.time,
    '2026-01-01T00:00:00Z ',
  )
  assert.equal(parseDetails('plain a=b text', false), undefined)
  assert.equal(sinceOf('10m', 1_000_000), '400')
  assert.throws(() => sinceOf('yesterday', 0), UserError)
})

describe('progress', () => {
  const meta = { Version: { Index: 1 }, CreatedAt: '', UpdatedAt: '' }
  const service = (more: Partial<ApiService> = {}): ApiService => ({
    ...meta,
    ID: 's',
    Spec: { ...emptySpec('a', []), Name: 'web', Mode: { Replicated: { Replicas: 2 } } },
    ...more,
  })
  const task = (Slot: number, State: string, Err?: string): ApiTask => ({
    ...meta,
    ID: `t${Slot}${State}`,
    Spec: {},
    ServiceID: 's',
    Slot,
    Status: { Timestamp: '', State, ...(Err !== undefined && { Err }) },
    DesiredState: 'running',
  })
  const fresh = { stale: undefined, isRollback: false, waitedMs: 0 }

  test('is there when every slot runs once, and the update is over', () => {
    const two = [task(1, 'running'), task(2, 'running')]
    assert.equal(progressOf(service(), two, fresh).isThere, true)
    assert.equal(
      progressOf(service(), [task(1, 'running'), task(1, 'running')], fresh).isThere,
      false,
    )
    assert.equal(
      progressOf(service({ UpdateStatus: { State: 'updating' } }), two, fresh).isThere,
      false,
    )
    assert.equal(
      progressOf(service({ UpdateStatus: { State: 'completed' } }), two, fresh).isThere,
      true,
    )
    assert.equal(
      progressOf(service({ ServiceStatus: { RunningTasks: 3, DesiredTasks: 2 } }), two, fresh)
        .isThere,
      false,
    )
  })

  test('tells what holds it up', () => {
    assert.equal(
      progressOf(service(), [task(1, 'pending', 'no suitable node')], fresh).note,
      'no suitable node',
    )
  })

  test('fails on a paused or rolled back update, but not on one of before', () => {
    const paused = service({ UpdateStatus: { State: 'paused', Message: 'why' } })
    assert.equal(progressOf(paused, [], fresh).failed, 'why')
    const stale = JSON.stringify(paused.UpdateStatus)
    assert.equal(progressOf(paused, [], { ...fresh, stale }).failed, undefined)
    const back = service({ UpdateStatus: { State: 'rollback_completed' } })
    assert.notEqual(progressOf(back, [], fresh).failed, undefined)
    assert.equal(progressOf(back, [], { ...fresh, isRollback: true }).failed, undefined)
  })

  test('a job is there when it has completed as often as asked', () => {
    const job = service({
      Spec: {
        ...emptySpec('a', []),
        Mode: { ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: 2 } },
      },
      JobStatus: { JobIteration: { Index: 3 } },
    })
    const done = (Slot: number, Index: number): ApiTask => ({
      ...task(Slot, 'complete'),
      JobIteration: { Index },
    })
    assert.equal(progressOf(job, [done(0, 3), done(1, 3)], fresh).isThere, true)
    assert.equal(progressOf(job, [done(0, 2), done(1, 3)], fresh).isThere, false)
  })
})
