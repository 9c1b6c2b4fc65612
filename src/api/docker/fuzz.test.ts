import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../base/index.ts'
import {
  configSpec,
  networkCreate,
  nodeSpec,
  secretSpec,
  serviceSpec,
  swarmInit,
  swarmSpec,
} from './documents.ts'
import { parseFilters } from './filters.ts'
import { readBody } from './shape.ts'
import { call, field, type Harness, openHarness } from './testing.ts'

const shapes = {
  serviceSpec,
  nodeSpec,
  secretSpec,
  configSpec,
  swarmSpec,
  swarmInit,
  networkCreate,
}

/** Names that the parsers look for, so that values of the wrong type come to lie where they are read. */
const fieldNames = fc.constantFrom(
  ...'Name Labels TaskTemplate ContainerSpec Image Env Mounts Type Source Target Mode Replicated Replicas Ports'.split(
    ' ',
  ),
  ...'EndpointSpec UpdateConfig Delay Parallelism Networks Placement Constraints Healthcheck Test Secrets File'.split(
    ' ',
  ),
  ...'Role Availability Data Driver IPAM Config Subnet Options Spec Raft CAConfig NodeCertExpiry __proto__'.split(
    ' ',
  ),
)

const { anyBody } = fc.letrec<{ anyBody: unknown }>((tie) => ({
  anyBody: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom<unknown>(
      null,
      true,
      false,
      0,
      -1,
      1.5,
      1e300,
      '',
      'web',
      'nginx',
      '10.1.0.0/24',
    ),
    fc.string(),
    fc.integer(),
    fc.array(tie('anyBody'), { maxLength: 4 }),
    fc.dictionary(fieldNames, tie('anyBody'), { maxKeys: 6 }),
  ),
}))

describe('parsers', () => {
  for (const [name, shape] of Object.entries(shapes)) {
    test(`${name} reads any JSON, or says in one sentence why not`, () => {
      fc.assert(
        fc.property(anyBody, (body) => {
          try {
            readBody<unknown>(shape, body)
          } catch (error) {
            assert.ok(error instanceof UserError, String(error))
            assert.equal(error.code, 'invalidInput')
            assert.ok(!error.message.includes('\n'))
          }
        }),
        { numRuns: 500 },
      )
    })

    test(`what ${name} has read, it reads again the same`, () => {
      fc.assert(
        fc.property(anyBody, (body) => {
          let once: unknown
          try {
            once = readBody<unknown>(shape, body).value
          } catch {
            return
          }
          const again = readBody<unknown>(shape, JSON.parse(JSON.stringify(once)))
          assert.deepEqual(again.value, once)
          assert.deepEqual(again.unknown, [])
        }),
        { numRuns: 500 },
      )
    })
  }

  test('filters are read, or refused in one sentence', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parseFilters(text, ['id', 'label'])
        } catch (error) {
          assert.ok(error instanceof UserError && error.code === 'invalidInput', String(error))
        }
      }),
    )
  })
})

describe('endpoints', () => {
  let harness: Harness
  before(async () => {
    harness = await openHarness()
    await call(harness, 'POST', '/services/create', {
      Name: 'web',
      TaskTemplate: { ContainerSpec: { Image: 'nginx' } },
    })
    await call(harness, 'POST', '/secrets/create', { Name: 'pw', Data: 'YQ==' })
    await call(harness, 'POST', '/configs/create', { Name: 'c', Data: 'YQ==' })
    await harness.settled()
  })
  after(() => harness.close())

  const bodies = [
    '/services/create',
    '/services/web/update?version=1',
    '/secrets/create',
    '/secrets/pw/update?version=1',
    '/configs/create',
    '/configs/c/update?version=1',
    '/networks/create',
    '/networks/ingress/connect',
    '/networks/ingress/disconnect',
    '/nodes/testhost/update?version=1',
    '/swarm/init',
    '/swarm/join',
    '/swarm/update?version=1',
    '/swarm/unlock',
  ]
  /** The answers with 500 that Docker gives, too. */
  const knownFailures =
    /update out of sequence|constraint expected|key '.*' is invalid|value '.*' is invalid/

  async function check(method: string, path: string, body?: unknown): Promise<void> {
    const answer = await call(harness, method, path, body)
    if (answer.status < 400) return
    const isPassed = answer.status === 404 && harness.engine.passed.length > 0
    assert.ok(
      isPassed || answer.message !== '',
      `${method} ${path}: ${answer.status} ${answer.text}`,
    )
    if (answer.status === 500) assert.match(answer.message, knownFailures)
    assert.deepEqual(Object.keys(Object(answer.json)), ['message'])
  }

  for (const path of bodies) {
    test(`POST ${path} takes any body without falling over`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.oneof(anyBody, fc.string()), (body) => check('POST', path, body)),
        { numRuns: 40 },
      )
      await check('POST', path)
      await check('POST', path, '{"Name": ')
      await check('POST', path, `${'['.repeat(100_000)}`)
      await check('POST', path, `{"Labels":${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}}`)
      assert.equal((await call(harness, 'GET', '/services')).status, 200)
    })
  }

  const queries = ['/services', '/tasks', '/nodes', '/secrets', '/configs', '/networks']
  for (const path of queries) {
    test(`GET ${path} takes any filters and any id`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.string(), fc.json({ maxDepth: 2 }), async (id, filters) => {
          await check('GET', `${path}?filters=${encodeURIComponent(filters)}`)
          const wellFormed = Buffer.from(id).toString()
          await check('GET', `${path}/${encodeURIComponent(wellFormed) || 'x'}`)
        }),
        { numRuns: 40 },
      )
      assert.ok(Array.isArray((await call(harness, 'GET', path)).json))
    })
  }

  test('no odd key gets into the prototype of anything', async () => {
    const body =
      '{"Name":"odd","Labels":{"__proto__":"x"},"TaskTemplate":{"ContainerSpec":{"Image":"a"}},"__proto__":{"Name":"y"}}'
    assert.equal((await call(harness, 'POST', '/services/create', body)).status, 201)
    const read = await call(harness, 'GET', '/services/odd')
    assert.ok(read.text.includes('"__proto__":"x"'))
    assert.equal(field({}, 'Name'), undefined)
  })
})
