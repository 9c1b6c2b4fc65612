import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { call, field, type Harness, openHarness } from './testing.ts'

const webSpec = (over: Record<string, unknown> = {}, container: Record<string, unknown> = {}) => ({
  Name: 'web',
  TaskTemplate: { ContainerSpec: { Image: 'nginx:1.25', ...container } },
  Mode: { Replicated: { Replicas: 2 } },
  ...over,
})

async function withHarness(
  work: (harness: Harness) => Promise<void>,
  options?: Parameters<typeof openHarness>[0],
): Promise<void> {
  const harness = await openHarness(options)
  try {
    await work(harness)
  } finally {
    await harness.close()
  }
}

/** Opens a call that goes on, once its headers are there. */
async function openStream(harness: Harness, path: string) {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath: harness.socketPath, path }, resolve).once('error', reject).end()
  })
  assert.equal(answer.statusCode, 200)
  let text = ''
  const wake = new EventEmitter()
  answer.on('data', (chunk: Buffer) => {
    text += chunk.toString()
    wake.emit('more')
  })
  // Closing it from here is how it ends.
  answer.on('error', () => {})
  return {
    async until(pattern: RegExp): Promise<string> {
      while (!pattern.test(text)) await once(wake, 'more', { signal: AbortSignal.timeout(60_000) })
      return text
    },
    close: () => answer.destroy(),
  }
}

describe('versions and headers', () => {
  test('announces what the engine speaks, at most 1.50', () =>
    withHarness(
      async (harness) => {
        const ping = await call(harness, 'HEAD', '/_ping')
        assert.equal(ping.status, 200)
        assert.equal(ping.headers['api-version'], '1.41')
        assert.equal(ping.headers['ostype'], 'linux')
        assert.equal(ping.headers['builder-version'], '2')
        assert.equal((await call(harness, 'GET', '/_ping')).text, 'OK')
        const version = await call(harness, 'GET', '/v1.41/version')
        assert.equal(field(version.json, 'ApiVersion'), '1.41')
        assert.equal(field(version.json, 'MinAPIVersion'), '1.24')
        const tooNew = await call(harness, 'GET', '/v1.99/services')
        assert.equal(tooNew.status, 400)
        assert.equal(
          tooNew.message,
          'client version 1.99 is too new. Maximum supported API version is 1.41',
        )
        const tooOld = await call(harness, 'GET', '/v1.1/services')
        assert.match(
          tooOld.message,
          /^client version 1.1 is too old\. Minimum supported API version is 1\.24/,
        )
      },
      { engineApiVersion: '1.41' },
    ))

  test('says in the ping what part of a swarm the node is', () =>
    withHarness(
      async (harness) => {
        assert.equal((await call(harness, 'GET', '/_ping')).headers['swarm'], 'inactive')
        const init = await call(harness, 'POST', '/v1.50/swarm/init', {
          ListenAddr: '0.0.0.0:2377',
        })
        assert.equal(init.status, 200)
        assert.match(init.text, /^"[0-9a-z]{25}"\n$/)
        assert.equal((await call(harness, 'GET', '/_ping')).headers['swarm'], 'active/manager')
      },
      { inCluster: false },
    ))

  test('JSON answers have the very content type that the CLI looks for', () =>
    withHarness(async (harness) => {
      const list = await call(harness, 'GET', '/services')
      assert.equal(list.headers['content-type'], 'application/json')
      assert.equal(list.text, '[]\n')
      const refusal = await call(harness, 'GET', '/services/nope')
      assert.equal(refusal.headers['content-type'], 'application/json')
      assert.deepEqual(refusal.json, { message: 'service nope not found' })
    }))
})

describe('without a cluster', () => {
  let harness: Harness
  before(async () => {
    harness = await openHarness({ inCluster: false })
  })
  after(() => harness.close())

  for (const path of ['/services', '/nodes', '/tasks', '/secrets', '/configs', '/swarm']) {
    test(`${path} says how to get one`, async () => {
      const answer = await call(harness, 'GET', path)
      assert.equal(answer.status, 503)
      assert.match(answer.message, /^This node is not a swarm manager\. Use "docker swarm init"/)
    })
  }

  test('/info shows an inactive swarm', async () => {
    const info = await call(harness, 'GET', '/info')
    assert.deepEqual(field(info.json, 'Swarm'), {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    })
  })
})

describe('services', () => {
  test('an accepted spec reads back with what creation fills in, and no more', () =>
    withHarness(async (harness) => {
      const created = await call(harness, 'POST', '/v1.50/services/create', {
        Name: 'web',
        TaskTemplate: { ContainerSpec: { Image: 'nginx' } },
      })
      assert.equal(created.status, 201)
      assert.equal(field(created.json, 'Warnings'), null)
      const read = await call(harness, 'GET', '/services/web')
      assert.deepEqual(field(read.json, 'Spec'), {
        Name: 'web',
        Labels: {},
        TaskTemplate: {
          ContainerSpec: { Image: 'nginx', Isolation: 'default' },
          ForceUpdate: 0,
          Runtime: 'container',
        },
        Mode: { Replicated: { Replicas: 1 } },
      })
      const full = await call(harness, 'GET', '/services/web?insertDefaults=true')
      assert.deepEqual(field(full.json, 'Spec', 'UpdateConfig'), {
        Parallelism: 1,
        FailureAction: 'pause',
        Monitor: 5e9,
        MaxFailureRatio: 0,
        Order: 'stop-first',
      })
      assert.equal(
        field(full.json, 'Spec', 'TaskTemplate', 'ContainerSpec', 'StopGracePeriod'),
        10e9,
      )
    }))

  test('an equal spec changes nothing, another one makes the next revision', () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/services/create', webSpec())
      await harness.settled()
      const versionOf = async () =>
        Number(field((await call(harness, 'GET', '/services/web')).json, 'Version', 'Index'))
      const first = await versionOf()
      const same = await call(harness, 'POST', `/services/web/update?version=${first}`, webSpec())
      assert.equal(same.status, 200)
      assert.equal(await versionOf(), first)
      const other = webSpec({}, { Image: 'nginx:1.26' })
      assert.equal(
        (await call(harness, 'POST', `/services/web/update?version=${first}`, other)).status,
        200,
      )
      await harness.settled()
      const read = await call(harness, 'GET', '/services/web')
      assert.equal(
        field(read.json, 'PreviousSpec', 'TaskTemplate', 'ContainerSpec', 'Image'),
        'nginx:1.25',
      )
      assert.equal(field(read.json, 'UpdateStatus', 'State'), 'completed')
      const revisions = await call(harness, 'GET', '/skep/v1/services/web/revisions')
      assert.deepEqual(field(revisions.json, 1, 'Number'), 2)
      const upToDate = encodeURIComponent('{"service":["web"],"_up-to-date":["true"]}')
      const tasks = await call(harness, 'GET', `/tasks?filters=${upToDate}`)
      assert.ok(Array.isArray(tasks.json))
      assert.equal(tasks.json.length, 2)
      assert.equal(field(tasks.json, 0, 'Spec', 'ContainerSpec', 'Image'), 'nginx:1.26')
    }))

  test("loops' writes do not make a person's update stale, people's do", () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/services/create', webSpec())
      const read = await call(harness, 'GET', '/services/web')
      const version = field(read.json, 'Version', 'Index')
      const store = harness.store()
      const [workload] = [...store.view.list('workload')]
      assert.ok(workload)
      await store.commit([{ type: 'update', object: { ...workload, status: {} } }])
      const spec = webSpec({ Labels: { a: 'b' } })
      const ok = await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}`,
        spec,
      )
      assert.equal(ok.status, 200)
      const stale = await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}`,
        spec,
      )
      assert.equal(stale.status, 500)
      assert.match(stale.message, /^rpc error: code = Unknown desc = update out of sequence/)
    }))

  test('rolls back to the spec before, and to any revision that is kept', () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/services/create', webSpec())
      const version = async () =>
        field((await call(harness, 'GET', '/services/web')).json, 'Version', 'Index')
      const none = await call(
        harness,
        'POST',
        `/services/web/update?rollback=previous&version=${String(await version())}`,
        webSpec(),
      )
      assert.equal(none.status, 400)
      assert.match(none.message, /does not have a previous spec/)
      for (const Replicas of [3, 4]) {
        const spec = webSpec({ Mode: { Replicated: { Replicas } } })
        await call(harness, 'POST', `/services/web/update?version=${String(await version())}`, spec)
      }
      await call(
        harness,
        'POST',
        `/services/web/update?rollback=previous&version=${String(await version())}`,
        webSpec(),
      )
      const back = await call(harness, 'GET', '/services/web')
      assert.equal(field(back.json, 'Spec', 'Mode', 'Replicated', 'Replicas'), 3)
      assert.equal(field(back.json, 'PreviousSpec', 'Mode', 'Replicated', 'Replicas'), 4)
      assert.match(String(field(back.json, 'UpdateStatus', 'State')), /^rollback_/)
      assert.equal((await call(harness, 'POST', '/skep/v1/services/web/rollback?to=1')).status, 200)
      const first = await call(harness, 'GET', '/services/web')
      assert.equal(field(first.json, 'Spec', 'Mode', 'Replicated', 'Replicas'), 2)
      const unknown = await call(harness, 'POST', '/skep/v1/services/web/rollback?to=9')
      assert.equal(unknown.status, 404)
      const bogus = await call(
        harness,
        'POST',
        `/services/web/update?rollback=bogus&version=${String(await version())}`,
        webSpec(),
      )
      assert.equal(bogus.status, 500)
      assert.equal(bogus.message, 'unrecognized rollback option bogus')
    }))

  test('credentials are sealed into the revision and never shown', () =>
    withHarness(async (harness) => {
      const header = Buffer.from('{"username":"u","password":"hunter2"}').toString('base64url')
      await call(harness, 'POST', '/services/create', webSpec(), { 'X-Registry-Auth': header })
      const [revision] = [...harness.store().view.list('revision')]
      assert.equal(revision?.registryAuth?.keyId, revision?.id)
      const read = await call(harness, 'GET', '/services/web')
      assert.ok(!read.text.includes(header))
      const spec = webSpec({ Labels: { a: 'b' } })
      const version = field(read.json, 'Version', 'Index')
      await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}&registryAuthFrom=spec`,
        spec,
      )
      const revisions = [...harness.store().view.list('revision')]
      assert.equal(revisions.length, 2)
      for (const { id, registryAuth } of revisions) assert.equal(registryAuth?.keyId, id)
    }))

  test('unknown fields and fields of a newer API are named in the warnings', () =>
    withHarness(async (harness) => {
      const spec = webSpec({ Nope: 1 }, { OomScoreAdj: 5, Sorcery: true })
      const created = await call(harness, 'POST', '/v1.41/services/create', spec)
      assert.equal(created.status, 201)
      assert.deepEqual(
        new Set([field(created.json, 'Warnings')].flat()),
        new Set([
          'unknown field Nope was ignored',
          'unknown field TaskTemplate.ContainerSpec.Sorcery was ignored',
          'OomScoreAdj (needs API version 1.46): ignored, the client speaks 1.41',
        ]),
      )
    }))

  const refused: readonly {
    readonly name: string
    readonly spec: Record<string, unknown>
    readonly status: number
    readonly message: RegExp
    readonly path?: string
  }[] = [
    {
      name: 'no image',
      spec: webSpec({}, { Image: '' }),
      status: 400,
      message: /ContainerSpec: image reference must be provided/,
    },
    {
      name: 'no image name',
      spec: webSpec({}, { Image: 'a b' }),
      status: 400,
      message: /ContainerSpec: "a b" is not a valid repository\/tag/,
    },
    {
      name: 'a bad name',
      spec: webSpec({ Name: 'a b' }),
      status: 400,
      message: /name must be valid as a DNS name component/,
    },
    {
      name: 'a long name',
      spec: webSpec({ Name: 'a'.repeat(64) }),
      status: 400,
      message: /name must be 63 characters or fewer/,
    },
    {
      name: 'no container',
      spec: { Name: 'web', TaskTemplate: {} },
      status: 400,
      message: /mismatched Runtime and \*Spec fields/,
    },
    {
      name: 'a plugin',
      spec: { Name: 'web', TaskTemplate: { Runtime: 'plugin' } },
      status: 501,
      message: /Runtime "plugin"/,
    },
    {
      name: 'two modes',
      spec: webSpec({ Mode: { Global: {}, Replicated: {} } }),
      status: 400,
      message: /must specify only one service mode/,
    },
    {
      name: 'a job with an update config',
      spec: webSpec({ Mode: { GlobalJob: {} }, UpdateConfig: {} }),
      status: 400,
      message: /Jobs may not have an update config/,
    },
    {
      name: 'a job from an old client',
      spec: webSpec({ Mode: { GlobalJob: {} } }),
      status: 400,
      message: /Unrecognized service mode/,
      path: '/v1.40/services/create',
    },
    {
      name: 'too little cpu',
      spec: {
        ...webSpec(),
        TaskTemplate: {
          ContainerSpec: { Image: 'a' },
          Resources: { Limits: { NanoCPUs: 100_000 } },
        },
      },
      status: 400,
      message: /invalid cpu value 0.0001: Must be at least 0.001/,
    },
    {
      name: 'too little memory',
      spec: {
        ...webSpec(),
        TaskTemplate: {
          ContainerSpec: { Image: 'a' },
          Resources: { Reservations: { MemoryBytes: 1 } },
        },
      },
      status: 400,
      message: /invalid memory value 1: Must be at least 4MiB/,
    },
    {
      name: 'a mount twice',
      spec: webSpec(
        {},
        {
          Mounts: [
            { Type: 'tmpfs', Target: '/x' },
            { Type: 'tmpfs', Target: '/x' },
          ],
        },
      ),
      status: 400,
      message: /ContainerSpec: duplicate mount point: \/x/,
    },
    {
      name: 'a pipe',
      spec: webSpec({}, { Mounts: [{ Type: 'npipe', Target: '/x' }] }),
      status: 400,
      message: /invalid MountType: "npipe"/,
    },
    {
      name: 'a cluster volume',
      spec: webSpec({}, { Mounts: [{ Type: 'cluster', Target: '/x' }] }),
      status: 400,
      message: /invalid MountType: "cluster"/,
    },
    {
      name: 'credentials of Windows',
      spec: webSpec({}, { Privileges: { CredentialSpec: { File: 'x' } } }),
      status: 501,
      message: /CredentialSpec\.File is not supported on Linux/,
    },
    {
      name: 'a hasty health check',
      spec: webSpec({}, { Healthcheck: { Interval: 5 } }),
      status: 400,
      message: /Interval in HealthConfig cannot be less than 1ms/,
    },
    {
      name: 'a negative delay',
      spec: webSpec({ UpdateConfig: { Delay: -1 } }),
      status: 400,
      message: /TaskSpec: update-delay cannot be negative/,
    },
    {
      name: 'an impossible ratio',
      spec: webSpec({ UpdateConfig: { MaxFailureRatio: 2 } }),
      status: 400,
      message: /update-maxfailureratio cannot be less than 0 or bigger than 1/,
    },
    {
      name: 'a wrong constraint',
      spec: {
        ...webSpec(),
        TaskTemplate: {
          ContainerSpec: { Image: 'a' },
          Placement: { Constraints: ['node.role=manager'] },
        },
      },
      status: 500,
      message: /^rpc error: code = Unknown desc = constraint expected one operator from ==, !=/,
    },
    {
      name: 'ingress and dnsrr',
      spec: webSpec({
        EndpointSpec: { Mode: 'dnsrr', Ports: [{ TargetPort: 80, PublishedPort: 8080 }] },
      }),
      status: 400,
      message: /EndpointSpec: port published with ingress mode can't be used with dnsrr mode/,
    },
    {
      name: 'a port twice',
      spec: webSpec({
        EndpointSpec: {
          Ports: [
            { TargetPort: 80, PublishedPort: 8080 },
            { TargetPort: 81, PublishedPort: 8080 },
          ],
        },
      }),
      status: 400,
      message: /EndpointSpec: duplicate published ports provided/,
    },
    {
      name: 'an unknown secret',
      spec: webSpec({}, { Secrets: [{ SecretID: 'x', SecretName: 'nn', File: { Name: 'nn' } }] }),
      status: 400,
      message: /^secret not found: nn/,
    },
    {
      name: 'two secrets at one place',
      spec: webSpec(
        {},
        {
          Secrets: [
            { SecretID: 'x', SecretName: 'a', File: { Name: 't' } },
            { SecretID: 'y', SecretName: 'b', File: { Name: 't' } },
          ],
        },
      ),
      status: 400,
      message: /secret references 'a' and 'b' have a conflicting target: 't'/,
    },
    {
      name: 'an unknown network',
      spec: webSpec({ Networks: [{ Target: 'nonet' }] }),
      status: 404,
      message: /^network nonet not found/,
    },
    {
      name: 'a local network',
      spec: webSpec({ Networks: [{ Target: 'br1' }] }),
      status: 403,
      message:
        /^The network br1 cannot be used with services\. Only networks scoped to the swarm can be used/,
    },
    {
      name: 'the ingress network',
      spec: webSpec({ Networks: [{ Target: 'ingress' }] }),
      status: 400,
      message: /cannot be explicitly attached to the ingress network/,
    },
    {
      name: 'a broken template',
      spec: webSpec({}, { Env: ['A={{nope}}'] }),
      status: 400,
      message: /invalid template/,
    },
    {
      name: 'a wrong type',
      spec: webSpec({}, { Env: 'A=b' }),
      status: 400,
      message: /^TaskTemplate\.ContainerSpec\.Env must be an array, not a string$/,
    },
    {
      name: 'a wrong type in a list',
      spec: webSpec({}, { Env: ['A=b', 5] }),
      status: 400,
      message: /^TaskTemplate\.ContainerSpec\.Env\[1\] must be a string, not a number$/,
    },
    {
      name: 'negative replicas',
      spec: webSpec({ Mode: { Replicated: { Replicas: -1 } } }),
      status: 400,
      message: /Mode\.Replicated\.Replicas must be a whole number of 0 or more/,
    },
    {
      name: 'a deadline that is none',
      spec: webSpec({ Labels: { 'skep.update.progress-deadline': 'soon' } }),
      status: 400,
      message: /"soon" is not a duration/,
    },
    {
      name: 'a failure policy that is none',
      spec: webSpec({ Labels: { 'skep.failure': 'stop-after 2s' } }),
      status: 400,
      message: /"stop-after 2s" is no failure policy\. Use replace, keep, or stop-after/,
    },
    {
      name: 'a word for rebalancing that is none',
      spec: webSpec({ Labels: { 'skep.rebalance': 'maybe' } }),
      status: 400,
      message: /"maybe" is neither on nor off/,
    },
    {
      name: 'a time to drain that is none',
      spec: webSpec({ Labels: { 'skep.drain': '1h' } }),
      status: 400,
      message: /"1h" is no time from 0s to 10m/,
    },
  ]
  describe('refuses', () => {
    let harness: Harness
    before(async () => {
      harness = await openHarness()
      harness.engine.local.set('br1', {})
    })
    after(() => harness.close())
    for (const { name, spec, status, message, path } of refused) {
      test(name, async () => {
        const answer = await call(harness, 'POST', path ?? '/services/create', spec)
        assert.match(answer.message, message)
        assert.equal(answer.status, status)
        assert.equal(harness.store().view.count('workload'), 0)
      })
    }
  })

  test('names, modes and ports belong to one service', () =>
    withHarness(async (harness) => {
      const ports = (PublishMode: string) => ({
        Ports: [{ TargetPort: 80, PublishedPort: 8080, PublishMode }],
      })
      const web = webSpec({ EndpointSpec: ports('ingress') })
      await call(harness, 'POST', '/services/create', web)
      const again = await call(harness, 'POST', '/services/create', webSpec())
      assert.equal(again.status, 409)
      assert.match(
        again.message,
        /name conflicts with an existing object: service web already exists/,
      )
      for (const mode of ['ingress', 'host']) {
        const clash = await call(harness, 'POST', '/services/create', {
          ...web,
          Name: 'b',
          EndpointSpec: ports(mode),
        })
        assert.equal(clash.status, 400)
        assert.match(
          clash.message,
          /port '8080' is already in use by service 'web' \([0-9a-z]{25}\) as an ingress port/,
        )
      }
      const version = field((await call(harness, 'GET', '/services/web')).json, 'Version', 'Index')
      const renamed = await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}`,
        {
          ...web,
          Name: 'c',
        },
      )
      assert.equal(renamed.status, 501)
      assert.equal(renamed.message, 'renaming services is not supported')
      const turned = await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}`,
        {
          ...web,
          Mode: { Global: {} },
        },
      )
      assert.equal(turned.status, 501)
      assert.equal(turned.message, 'service mode change is not allowed')
      const missing = await call(harness, 'POST', '/services/web/update', web)
      assert.equal(missing.status, 400)
      assert.equal(
        missing.message,
        `invalid service version '': strconv.ParseUint: parsing "": invalid syntax`,
      )
    }))

  test('is found by id, name and the beginning of its id', () =>
    withHarness(async (harness) => {
      for (const Name of ['web-a', 'web-b'])
        await call(harness, 'POST', '/services/create', webSpec({ Name }))
      const [first] = [...harness.store().view.list('workload')]
      assert.ok(first)
      for (const text of [first.id, 'WEB-A', first.id.slice(0, 20)]) {
        assert.equal(field((await call(harness, 'GET', `/services/${text}`)).json, 'ID'), first.id)
      }
      assert.equal((await call(harness, 'DELETE', '/services/web-a')).status, 200)
      assert.equal((await call(harness, 'GET', '/services/web-a')).status, 404)
      assert.equal(harness.store().view.count('endpoint'), 1)
    }))

  test('filters come as maps and as lists, and unknown ones are refused', () =>
    withHarness(async (harness) => {
      await call(
        harness,
        'POST',
        '/services/create',
        webSpec({ Name: 'web-a', Labels: { x: '1' } }),
      )
      await call(harness, 'POST', '/services/create', webSpec({ Name: 'db', Labels: { x: '2' } }))
      const count = async (filters: unknown) => {
        const answer = await call(
          harness,
          'GET',
          `/services?status=true&filters=${encodeURIComponent(JSON.stringify(filters))}`,
        )
        assert.ok(Array.isArray(answer.json), answer.text)
        return answer.json.length
      }
      assert.equal(await count({ label: { 'x=1': true } }), 1)
      assert.equal(await count({ label: ['x'] }), 2)
      assert.equal(await count({ label: ['x', 'x=2'], name: ['d'] }), 1)
      assert.equal(await count({ name: ['web', 'db'] }), 2)
      assert.equal(await count({ mode: ['global'] }), 0)
      const bogus = await call(
        harness,
        'GET',
        '/services?filters=%7B%22bogus%22%3A%5B%22a%22%5D%7D',
      )
      assert.equal(bogus.status, 400)
      assert.match(bogus.message, /^invalid filter 'bogus'/)
      const state = await call(
        harness,
        'GET',
        '/tasks?filters=%7B%22desired-state%22%3A%5B%22bogus%22%5D%7D',
      )
      assert.equal(state.status, 500)
      assert.equal(state.message, "Invalid desired-state filter: 'bogus'")
      const unknown = await call(
        harness,
        'GET',
        '/tasks?filters=%7B%22service%22%3A%5B%22nope%22%5D%7D',
      )
      assert.equal(unknown.status, 404)
      assert.equal(unknown.message, 'service nope not found')
    }))
})

describe('secrets and configs', () => {
  test('the data of a secret goes in and never comes out', () =>
    withHarness(async (harness) => {
      const Data = Buffer.from('hunter2').toString('base64')
      const created = await call(harness, 'POST', '/secrets/create', { Name: 'pw', Data })
      assert.equal(created.status, 201)
      for (const path of ['/secrets', '/secrets/pw']) {
        const text = (await call(harness, 'GET', path)).text
        assert.ok(!text.includes(Data) && !text.includes('hunter2'))
      }
      const [secret] = [...harness.store().view.list('secret')]
      assert.ok(secret && !JSON.stringify(secret).includes(Data))
      const update = (body: object) =>
        call(harness, 'POST', `/secrets/pw/update?version=${secret.specVersion}`, body)
      const changed = await update({ Name: 'pw', Data: Buffer.from('other').toString('base64') })
      assert.equal(changed.status, 400)
      assert.match(changed.message, /^only updates to Labels are allowed/)
      assert.equal((await update({ Name: 'pw', Data, Labels: { a: 'b' } })).status, 200)
      assert.deepEqual(field((await call(harness, 'GET', '/secrets/pw')).json, 'Spec', 'Labels'), {
        a: 'b',
      })
      assert.equal((await call(harness, 'DELETE', '/secrets/pw')).status, 204)
    }))

  test('a broken body does not quote the secret', () =>
    withHarness(async (harness) => {
      const answer = await call(harness, 'POST', '/secrets/create', '{"Name":"pw","Data": hunter2}')
      assert.equal(answer.status, 400)
      assert.ok(!answer.text.includes('hunter2'))
      const template = {
        Name: 'pw',
        Data: Buffer.from('{{nope hunter2').toString('base64'),
        Templating: { Name: 'golang' },
      }
      const refused = await call(harness, 'POST', '/secrets/create', template)
      assert.equal(refused.status, 400)
      assert.ok(!refused.text.includes('nope'))
    }))

  test('names its users when it is to be removed', () =>
    withHarness(async (harness) => {
      const created = await call(harness, 'POST', '/configs/create', { Name: 'c', Data: 'YQ==' })
      const ConfigID = field(created.json, 'ID')
      const Configs = [{ ConfigID, ConfigName: 'c', File: { Name: '/c' } }]
      for (const Name of ['a', 'b'])
        await call(harness, 'POST', '/services/create', webSpec({ Name }, { Configs }))
      const refused = await call(harness, 'DELETE', '/configs/c')
      assert.equal(refused.status, 400)
      assert.equal(refused.message, "config 'c' is in use by the following services: a, b")
    }))

  test('sizes and names have bounds', () =>
    withHarness(async (harness) => {
      const data = (length: number) => Buffer.alloc(length).toString('base64')
      const big = await call(harness, 'POST', '/secrets/create', { Name: 'a', Data: data(512_000) })
      assert.equal(big.message, 'secret data must be larger than 0 and less than 512000 bytes')
      const largest = await call(harness, 'POST', '/configs/create', {
        Name: 'a',
        Data: data(1_023_999),
      })
      assert.equal(largest.status, 201)
      const unnamed = await call(harness, 'POST', '/configs/create', { Data: 'YQ==' })
      assert.equal(unnamed.message, 'name must be provided')
      const odd = await call(harness, 'POST', '/secrets/create', { Name: '-a', Data: 'YQ==' })
      assert.match(odd.message, /^invalid name, only 64 \[a-zA-Z0-9-_\.\] characters allowed/)
    }))
})

describe('networks', () => {
  test("the cluster's and the engine's are one list, and bridges of ours are not in it", () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/networks/create', { Name: 'front', Driver: 'overlay' })
      const [, front] = [...harness.store().view.list('network')].filter(
        ({ spec }) => !spec.predefined,
      )
      harness.engine.local.set('skep-front', { 'skep.network.id': front?.id ?? '' })
      const list = await call(harness, 'GET', '/networks')
      assert.ok(Array.isArray(list.json))
      assert.deepEqual(
        list.json.map((network) => field(network, 'Name')),
        ['ingress', 'front', 'bridge'],
      )
      const host = await call(harness, 'GET', '/networks/host?scope=swarm')
      assert.match(String(field(host.json, 'Id')), /^[0-9a-z]{25}$/)
      assert.deepEqual(harness.engine.passed, [])
      await call(harness, 'GET', '/v1.50/networks/bridge')
      assert.deepEqual(harness.engine.passed, [
        { method: 'GET', url: '/v1.50/networks/bridge', body: '' },
      ])
    }))

  test("the engine's network of a name goes before the cluster's whose id begins so", () =>
    withHarness(async (harness) => {
      const [ingress] = [...harness.store().view.list('network')]
      const name = ingress?.id.slice(0, 3) ?? ''
      assert.equal(field((await call(harness, 'GET', `/networks/${name}`)).json, 'Name'), 'ingress')
      harness.engine.local.set(name, {})
      await call(harness, 'GET', `/networks/${name}`)
      assert.deepEqual(
        harness.engine.passed.map(({ url }) => url),
        [`/networks/${name}`],
      )
    }))

  test('what is not for the cluster reaches the engine with its body', () =>
    withHarness(async (harness) => {
      const body = '{ "Name": "br1",  "Driver": "bridge" }'
      await call(harness, 'POST', '/v1.41/networks/create', body)
      assert.deepEqual(harness.engine.passed, [
        { method: 'POST', url: '/v1.41/networks/create', body },
      ])
    }))

  test('on a worker a plain container gets its place from the cluster, unless the network is the engine’s', () =>
    withHarness(async (harness) => {
      harness.nodeControl.work()
      harness.engine.local.set('att', { 'skep.network.id': 'n1' })
      harness.engine.local.set('own', {})
      harness.engine.status = 201
      const create = (mode: string) =>
        call(harness, 'POST', `/v1.41/containers/create?name=on-${mode}`, {
          Image: 'a',
          HostConfig: { NetworkMode: mode },
        })
      assert.equal((await create('own')).status, 201)
      assert.equal((await create('bridge')).status, 201)
      assert.deepEqual(harness.engine.reserved, [])
      // One that is here already, and one that only the managers can know.
      assert.equal((await create('att')).status, 201)
      assert.equal((await create('far')).status, 201)
      assert.deepEqual(harness.engine.reserved, ['on-att', 'on-far'])
      const { passed } = harness.engine
      assert.match(passed.at(-1)?.body ?? '', /"NetworkMode":"skep-att"/)
      assert.equal(passed.length, 4)
    }))

  test('a plain container gets its address on an attachable network from the cluster', () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/networks/create', {
        Name: 'att',
        Driver: 'overlay',
        Attachable: true,
      })
      await call(harness, 'POST', '/networks/create', { Name: 'shut', Driver: 'overlay' })
      const create = (mode: string) => ({
        Image: 'a',
        HostConfig: { NetworkMode: mode },
        NetworkingConfig: { EndpointsConfig: { [mode]: { Aliases: ['x'] } } },
      })
      const refused = await call(
        harness,
        'POST',
        '/v1.41/containers/create?name=c1',
        create('shut'),
      )
      assert.equal(refused.status, 403)
      assert.match(refused.message, /network shut not manually attachable/)
      harness.engine.status = 201
      await call(harness, 'POST', '/v1.41/containers/create?name=c1', create('att'))
      const [passed] = harness.engine.passed
      assert.equal(passed?.url, '/v1.41/containers/create?name=c1')
      assert.deepEqual(JSON.parse(passed?.body ?? ''), {
        Image: 'a',
        Labels: { 'skep.attachment': 'c1' },
        MacAddress: '02:42:0a:00:09:09',
        HostConfig: { NetworkMode: 'skep-att', Dns: ['169.254.1.1'] },
        NetworkingConfig: {
          EndpointsConfig: {
            'skep-att': {
              Aliases: ['x'],
              IPAMConfig: { IPv4Address: '10.0.9.9' },
              MacAddress: '02:42:0a:00:09:09',
            },
          },
        },
      })
      assert.deepEqual(harness.engine.released, [])
      harness.engine.status = 404
      await call(harness, 'POST', '/v1.41/containers/create?name=c2', create('att'))
      // After the answer: nobody waits for it.
      while (harness.engine.released.length === 0) {
        await new Promise((resolve) => setImmediate(resolve))
      }
      assert.deepEqual(harness.engine.released, ['c2'])
      const plain = '{"Image":"b"}'
      await call(harness, 'POST', '/containers/create', plain)
      assert.equal(harness.engine.passed.at(-1)?.body, plain)
    }))

  const refused = [
    {
      name: 'a subnet that is none',
      body: { IPAM: { Config: [{ Subnet: '10.0.0.0' }] } },
      status: 400,
      message: /invalid subnet 10\.0\.0\.0/,
    },
    {
      name: 'a gateway elsewhere',
      body: { IPAM: { Config: [{ Subnet: '10.9.0.0/24', Gateway: '10.8.0.1' }] } },
      status: 400,
      message: /gateway 10\.8\.0\.1 is not within subnet/,
    },
    {
      name: 'a subnet of IPv6 without IPv6',
      body: { IPAM: { Config: [{ Subnet: 'fd00:9::/64' }] } },
      status: 400,
      message: /subnet fd00:9::\/64 is one of IPv6/,
    },
    {
      name: 'two subnets of IPv6',
      body: {
        EnableIPv6: true,
        IPAM: { Config: [{ Subnet: 'fd00:9::/64' }, { Subnet: 'fd00:8::/64' }] },
      },
      status: 501,
      message: /one subnet of each family/,
    },
    {
      name: 'a subnet of IPv6 that is for one link',
      body: { EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fe80:9::/64' }] } },
      status: 400,
      message: /lies in fe80::\/10/,
    },
    {
      name: 'a gateway of IPv6 elsewhere',
      body: {
        EnableIPv6: true,
        IPAM: { Config: [{ Subnet: 'fd00:9::/64', Gateway: 'fd00:8::1' }] },
      },
      status: 400,
      message: /gateway fd00:8::1 is not within subnet/,
    },
    {
      name: 'a second ingress network',
      body: { Ingress: true },
      status: 409,
      message: /ingress network \([0-9a-z]{25}\) is already present/,
    },
    {
      name: 'a taken name',
      body: { Name: 'ingress' },
      status: 409,
      message: /network with name ingress already exists/,
    },
    {
      name: 'a name of the engine',
      body: { Name: 'host' },
      status: 403,
      message: /predefined host network/,
    },
  ]
  for (const { name, body, status, message } of refused) {
    test(`refuses ${name}`, () =>
      withHarness(async (harness) => {
        const answer = await call(harness, 'POST', '/networks/create', {
          Name: 'n',
          Driver: 'overlay',
          ...body,
        })
        assert.match(answer.message, message)
        assert.equal(answer.status, status)
      }))
  }
})

describe('logs', () => {
  test('frames each line, with the details that the CLI looks for', () =>
    withHarness(async (harness) => {
      await call(
        harness,
        'POST',
        '/services/create',
        webSpec({ Mode: { Replicated: { Replicas: 1 } } }),
      )
      await harness.settled()
      const none = await call(harness, 'GET', '/services/web/logs')
      assert.equal(none.status, 500)
      assert.equal(none.message, 'Bad parameters: you must choose at least one stream')
      const answer = await call(
        harness,
        'GET',
        '/v1.50/services/web/logs?stdout=1&details=1&tail=1',
      )
      assert.equal(answer.headers['content-type'], 'application/vnd.docker.multiplexed-stream')
      const [task] = [...harness.store().view.list('task')]
      const payload = `com.docker.swarm.node.id=${task?.nodeId},com.docker.swarm.service.id=${task?.workloadId},com.docker.swarm.task.id=${task?.id} second line\n`
      assert.equal(answer.text.slice(8), payload)
      assert.equal(answer.text.charCodeAt(0), 1)
      const old = await call(harness, 'GET', `/v1.41/tasks/${task?.id}/logs?stdout=1`)
      assert.equal(old.headers['content-type'], 'application/vnd.docker.raw-stream')
    }))
})

describe('a locked node', () => {
  test('says so everywhere, and is opened with the key only', () =>
    withHarness(async (harness) => {
      const read = await call(harness, 'GET', '/swarm')
      const spec = {
        ...Object(field(read.json, 'Spec')),
        EncryptionConfig: { AutoLockManagers: true },
      }
      const version = String(field(read.json, 'Version', 'Index'))
      assert.equal(
        (await call(harness, 'POST', `/swarm/update?version=${version}`, spec)).status,
        200,
      )
      const key = field((await call(harness, 'GET', '/swarm/unlockkey')).json, 'UnlockKey')
      assert.match(String(key), /^SWMKEY-1-/)
      const early = await call(harness, 'POST', '/swarm/unlock', { UnlockKey: key })
      assert.deepEqual([early.status, early.message], [409, 'swarm is not locked'])
      harness.nodeControl.lock()
      const list = await call(harness, 'GET', '/services')
      assert.equal(list.status, 503)
      assert.match(
        list.message,
        /^Swarm is encrypted and needs to be unlocked before it can be used/,
      )
      assert.equal((await call(harness, 'GET', '/_ping')).headers['swarm'], 'locked')
      const wrong = await call(harness, 'POST', '/swarm/unlock', { UnlockKey: 'SWMKEY-1-x' })
      assert.equal(wrong.status, 401)
      assert.match(wrong.message, /^swarm could not be unlocked: invalid key provided/)
      assert.equal((await call(harness, 'POST', '/swarm/unlock', { UnlockKey: key })).status, 200)
      assert.equal((await call(harness, 'GET', '/services')).status, 200)
    }))
})

describe('the swarm spec', () => {
  const refused = [
    {
      name: 'another name',
      spec: { Name: 'other' },
      status: 400,
      message: /modification of cluster name is not allowed/,
    },
    {
      name: 'an external authority',
      spec: { CAConfig: { ExternalCAs: [{ Protocol: 'cfssl', URL: 'https://x' }] } },
      status: 501,
      message: /external certificate authorities/,
    },
    {
      name: 'short certificates',
      spec: { CAConfig: { NodeCertExpiry: 1e9 } },
      status: 400,
      message: /minimum certificate expiry time is 1h0m0s/,
    },
    {
      name: 'a hasty heartbeat',
      spec: { Dispatcher: { HeartbeatPeriod: 1 } },
      status: 400,
      message: /heartbeat/,
    },
  ]
  for (const { name, spec, status, message } of refused) {
    test(`refuses ${name}`, () =>
      withHarness(async (harness) => {
        const read = await call(harness, 'GET', '/swarm')
        const version = String(field(read.json, 'Version', 'Index'))
        const answer = await call(harness, 'POST', `/swarm/update?version=${version}`, spec)
        assert.match(answer.message, message)
        assert.equal(answer.status, status)
      }))
  }
})

test('the beginning of several ids is ambiguous', () =>
  withHarness(async (harness) => {
    for (let i = 0; i < 40; i++) {
      await call(harness, 'POST', '/configs/create', { Name: `config-${i}`, Data: 'YQ==' })
    }
    // Of 40 ids two begin alike: there are 36 characters.
    const firsts = [...harness.store().view.list('config')].map(({ id }) => id[0] ?? '')
    const twice = firsts.find((first, index) => firsts.indexOf(first) < index)
    const answer = await call(harness, 'GET', `/configs/${twice}`)
    assert.equal(answer.status, 400)
    assert.match(answer.message, /^config . is ambiguous \(\d+ matches found\)$/)
  }))

describe('streams', () => {
  test('logs that are followed take in tasks that come later, and end with their client', () =>
    withHarness(async (harness) => {
      const one = webSpec({ Mode: { Replicated: { Replicas: 1 } } })
      await call(harness, 'POST', '/services/create', one)
      await harness.settled()
      const stream = await openStream(harness, '/services/web/logs?stdout=1&follow=1')
      const begun = await stream.until(/hello from (\w{25})/)
      const version = field((await call(harness, 'GET', '/services/web')).json, 'Version', 'Index')
      await call(harness, 'POST', `/services/web/update?version=${String(version)}`, webSpec())
      await harness.settled()
      const [, second] = [...harness.store().view.list('task')]
      assert.ok(second && !begun.includes(second.id))
      await stream.until(new RegExp(`hello from ${second.id}`))
      stream.close()
    }))

  test('events begin with their headers and come as they happen', () =>
    withHarness(async (harness) => {
      const filters = encodeURIComponent('{"scope":["swarm"],"service":["web"]}')
      const stream = await openStream(harness, `/events?filters=${filters}`)
      await call(harness, 'POST', '/secrets/create', { Name: 'pw', Data: 'YQ==' })
      await call(harness, 'POST', '/services/create', webSpec())
      const text = await stream.until(/"Action":"create"/)
      assert.ok(!text.includes('secret'))
      stream.close()
    }))
})

describe('while the engine is away', () => {
  test('/info says what it said last, and the swarm part is as it is now', () =>
    withHarness(async (harness) => {
      await call(harness, 'GET', '/info')
      harness.engine.away = true
      const info = await call(harness, 'GET', '/info')
      assert.equal(field(info.json, 'ServerVersion'), '28.2.2')
      assert.equal(field(info.json, 'Swarm', 'ControlAvailable'), true)
      assert.match(String(field(info.json, 'Warnings', 0)), /does not answer/)
    }))
})

describe('events', () => {
  test('tell what changed, and repeat it for those who ask', () =>
    withHarness(async (harness) => {
      await call(harness, 'POST', '/services/create', webSpec())
      const version = field((await call(harness, 'GET', '/services/web')).json, 'Version', 'Index')
      await call(
        harness,
        'POST',
        `/services/web/update?version=${String(version)}`,
        webSpec({ Mode: { Replicated: { Replicas: 5 } } }),
      )
      const nowS = Math.ceil(Date.now() / 1_000)
      const filters = encodeURIComponent('{"type":["service"],"event":{"update":true}}')
      const past = await call(
        harness,
        'GET',
        `/events?since=1&until=${nowS - 1}.999&filters=${filters}`,
      )
      assert.equal(past.status, 200)
      const all = await call(harness, 'GET', `/events?since=1&until=${nowS}&filters=${filters}`)
      const first: unknown = JSON.parse(all.text.split('\n')[0] ?? '')
      assert.equal(field(first, 'scope'), 'swarm')
      assert.deepEqual(field(first, 'Actor', 'Attributes'), {
        name: 'web',
        'replicas.old': '2',
        'replicas.new': '5',
      })
    }))
})

describe('bad input', () => {
  test('a body over the limit is refused, and the connection lives on', () =>
    withHarness(async (harness) => {
      const answer = await call(
        harness,
        'POST',
        '/services/create',
        Buffer.alloc(5 * 1024 * 1024, 32),
      )
      assert.equal(answer.status, 413)
      assert.match(answer.message, /larger than 4194304 bytes/)
      assert.equal((await call(harness, 'GET', '/services')).status, 200)
    }))

  test('any content type is read as JSON', () =>
    withHarness(async (harness) => {
      const answer = await call(harness, 'POST', '/services/create', webSpec(), {
        'Content-Type': 'text/plain',
      })
      assert.equal(answer.status, 201)
    }))

  test('what the router cannot read is for the engine', () =>
    withHarness(async (harness) => {
      const answer = await call(harness, 'GET', '/images/%zz/json')
      assert.equal(answer.status, 404)
      assert.deepEqual(harness.engine.passed, [
        { method: 'GET', url: '/images/%zz/json', body: '' },
      ])
    }))

  test('a client that waits for 100 Continue gets it', () =>
    withHarness(async (harness) => {
      const body = JSON.stringify(webSpec())
      const socket = connect(harness.socketPath)
      socket.write(
        `POST /services/create HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`,
      )
      let text = ''
      for await (const chunk of socket) {
        text += String(chunk)
        if (text === 'HTTP/1.1 100 Continue\r\n\r\n') socket.write(body)
      }
      assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 Created/)
    }))
})
