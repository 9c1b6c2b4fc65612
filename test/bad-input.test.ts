import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { startDaemon, type TestDaemon } from './support/daemon.ts'
import { at, numberAt, textAt } from './support/look.ts'

const data = Buffer.from('x').toString('base64')

describe('bad input', () => {
  let daemon: TestDaemon
  let service = ''
  before(async () => {
    daemon = await startDaemon()
    service = await daemon.ok('service', 'create', '-d', '--name', 'there', 'whoami:v1')
    await daemon.api('POST', '/configs/create', { Name: 'there', Data: data })
    await daemon.api('POST', '/secrets/create', { Name: 'there', Data: data })
    await daemon.ok('network', 'create', '-d', 'overlay', 'e2e-there')
  })
  after(() => daemon[Symbol.asyncDispose]())

  const posts = [
    ...['/swarm/init', '/swarm/join', '/swarm/update?version=1', '/swarm/unlock'],
    ...['/services/create', '/services/there/update?version=1', '/secrets/create'],
    ...['/configs/create', '/networks/create', '/nodes/self/update?version=1'],
    ...['/secrets/there/update?version=1', '/configs/there/update?version=1'],
  ]
  for (const path of posts) {
    test(`POST ${path} names what is wrong with its body`, async () => {
      for (const body of [
        '{',
        '{"a":',
        'nonsense',
        '[]',
        '"text"',
        '12',
        'null',
        '{"Name": 5}',
        '{"Labels": "x"}',
      ]) {
        const answer = await daemon.api('POST', path, body)
        assert.ok(
          answer.status >= 400 && answer.status <= 503,
          `${body}: ${answer.status} ${answer.text}`,
        )
        assert.ok(textAt(answer.body, 'message') !== '', `${body}: ${answer.text}`)
        assert.doesNotMatch(answer.text, /TypeError|undefined|at \w+ \(|node_modules/)
      }
    })
  }

  const wrong: readonly (readonly [string, unknown, number, RegExp])[] = [
    ['/services/create', { Name: 'x' }, 400, /mismatched Runtime and \*Spec fields/],
    [
      '/services/create',
      { Name: 'x', TaskTemplate: { ContainerSpec: { Image: 5 } } },
      400,
      /Image/,
    ],
    [
      '/services/create',
      { Name: 'x', TaskTemplate: { ContainerSpec: { Image: 'whoami:v1', Env: 'A=1' } } },
      400,
      /Env/,
    ],
    [
      '/services/create',
      {
        Name: 'x',
        TaskTemplate: { ContainerSpec: { Image: 'whoami:v1' } },
        Mode: { Replicated: { Replicas: -1 } },
      },
      400,
      /Replicas/,
    ],
    [
      '/services/create',
      { Name: 'there', TaskTemplate: { ContainerSpec: { Image: 'whoami:v1' } } },
      409,
      /name conflicts with an existing object|already exists/,
    ],
    ['/configs/create', { Name: 'there', Data: data }, 409, /already exists|conflicts/],
    ['/secrets/create', { Name: 'there', Data: data }, 409, /already exists|conflicts/],
    ['/secrets/create', { Name: 'b', Data: '***' }, 400, /base64|Data/i],
    ['/secrets/create', { Data: data }, 400, /name/i],
    ['/networks/create', { Name: 'e2e-there', Driver: 'overlay' }, 409, /already exists/],
    [
      '/networks/create',
      { Name: 'e2e-bad', Driver: 'overlay', IPAM: { Config: [{ Subnet: 'nope' }] } },
      400,
      /nope/,
    ],
    ['/swarm/init', { ListenAddr: '0.0.0.0:2377' }, 503, /already part of a swarm/],
    ['/services/nosuch/update?version=1', { Name: 'nosuch' }, 404, /nosuch/],
    ['/services/there/update?version=999999', undefined, 500, /update out of sequence/],
    ['/services/there/update', undefined, 400, /version/],
    ['/services/there/update?version=abc', undefined, 400, /version/],
  ]
  for (const [path, body, status, message] of wrong) {
    test(`POST ${path} ${JSON.stringify(body)?.slice(0, 90)} is ${status}`, async () => {
      const spec = at((await daemon.api('GET', `/services/${service}`)).body, 'Spec')
      const answer = await daemon.api('POST', path, body ?? spec)
      assert.equal(answer.status, status, answer.text)
      assert.match(textAt(answer.body, 'message'), message)
    })
  }

  const reads: readonly (readonly [string, string, number, RegExp])[] = [
    ['GET', '/services/nosuch', 404, /service nosuch not found/],
    ['GET', '/tasks/nosuch', 404, /task nosuch not found/],
    ['GET', '/nodes/nosuch', 404, /node nosuch not found/],
    ['GET', '/secrets/nosuch', 404, /secret nosuch not found/],
    ['GET', '/configs/nosuch', 404, /config nosuch not found/],
    ['GET', '/networks/nosuch', 404, /network nosuch not found/],
    ['GET', '/services/nosuch/logs?stdout=1', 404, /nosuch/],
    ['GET', '/services/there/logs', 500, /you must choose at least one stream/],
    ['GET', '/services?filters={', 400, /./],
    ['GET', '/services?filters={"bogus":["1"]}', 400, /[Ii]nvalid filter 'bogus'/],
    [
      'GET',
      '/tasks?filters={"desired-state":["bogus"]}',
      500,
      /Invalid desired-state filter: 'bogus'/,
    ],
    ['GET', '/nosuchpath', 404, /page not found/],
    ['GET', '/v1.99/services', 400, /client version 1\.99 is too new/],
    ['GET', '/v1.1/services', 400, /client version 1\.1 is too old/],
    ['DELETE', '/services/nosuch', 404, /nosuch/],
    ['DELETE', '/secrets/nosuch', 404, /nosuch/],
    ['DELETE', '/nodes/nosuch', 404, /nosuch/],
  ]
  for (const [method, path, status, message] of reads) {
    test(`${method} ${path} is ${status}`, async () => {
      const answer = await daemon.api(method, encodeURI(path))
      assert.equal(answer.status, status, answer.text)
      assert.match(textAt(answer.body, 'message'), message)
    })
  }

  test('a prefix of several ids is ambiguous', async () => {
    for (let turn = 0; turn < 40; turn++) {
      await daemon.api('POST', '/configs/create', { Name: `many${turn}`, Data: data })
    }
    const { body } = await daemon.api('GET', '/configs')
    const ids = Array.isArray(body) ? body.map((one) => textAt(one, 'ID')) : []
    const first = ids.map((id) => id[0] ?? '')
    const twice = first.find((letter, index) => first.indexOf(letter) !== index) ?? ''
    const answer = await daemon.api('GET', `/configs/${twice}`)
    assert.equal(answer.status, 400, answer.text)
    assert.match(answer.text, /is ambiguous \(\d+ matches found\)/)
  })

  test('a body beyond the limit is refused, and the daemon lives on', async () => {
    const answer = await daemon
      .api('POST', '/services/create', `{"Name":"${'x'.repeat(20 * 1024 * 1024)}"}`)
      .catch((error: unknown) => ({ status: 413, body: {}, text: String(error) }))
    assert.ok([400, 413].includes(answer.status), `${answer.status}`)
    assert.equal((await daemon.api('GET', '/_ping')).status, 200)
    const config = await daemon.api('POST', '/configs/create', {
      Name: 'big',
      Data: Buffer.alloc(1_100_000, 'x').toString('base64'),
    })
    assert.equal(config.status, 400, config.text)
    assert.match(config.text, /1024000|1000|too large|larger/)
  })

  test('two updates of one version: one wins', async () => {
    const { body } = await daemon.api('GET', '/services/there')
    const version = numberAt(body, 'Version', 'Index')
    const answers = await Promise.all(
      ['a', 'b', 'c'].map((label) => {
        const spec = at(body, 'Spec')
        const changed = { ...(typeof spec === 'object' ? spec : {}), Labels: { label } }
        return daemon.api('POST', `/services/there/update?version=${version}`, changed)
      }),
    )
    const statuses = answers.map(({ status }) => status).sort((one, other) => one - other)
    assert.deepEqual(statuses, [200, 500, 500])
  })
})
