import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Random, silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { type ClusterNode, idFrom } from '../model/index.ts'
import { buildContainer, buildNode, buildTemplate } from '../model/testing.ts'
import { openEtcdStore } from '../store/etcd/index.ts'
import { SimulatedEtcd } from '../store/etcd/simulated-etcd.ts'
import { plainValues } from '../store/index.ts'
import { type Control, initialNetworks, openControl } from './index.ts'
import { declare } from './testing.ts'

const source = { dialect: 'docker', document: {} } as const

function seeded(seed: number): Random {
  let state = seed
  return {
    below(limit) {
      state = (state * 48_271) % 2_147_483_647
      return state % limit
    },
  }
}

/** Two managers on one etcd, asked at the same moment; each sees what the other did a moment later. */
async function onTwoManagers(body: (one: Control, two: Control) => Promise<void>): Promise<void> {
  const clock = openRealClock()
  const etcd = new SimulatedEtcd({ clock, random: seeded(3), members: 3, delayMsMax: 3 })
  const stores = await Promise.all(
    [0, 1].map((member) => {
      const client = etcd.client({ member, fixed: true })
      return openEtcdStore({
        client,
        values: plainValues,
        clock,
        random: seeded(member + 11),
        log: silentLog,
      })
    }),
  )
  const [one, two] = stores.map((store, index) =>
    openControl({
      store,
      clock,
      random: seeded(index + 101),
      sealer: {
        seal: (bytes, keyId) => ({
          keyId,
          nonce: '',
          ciphertext: Buffer.from(bytes).toString('hex'),
        }),
        unseal: ({ ciphertext }) => Buffer.from(ciphertext, 'hex'),
      },
    }),
  )
  assert.ok(one && two)
  try {
    const networks = initialNetworks(seeded(7)).map(
      (object) => ({ type: 'create', object }) as const,
    )
    await one.store.commit(networks)
    await two.store.barrier?.()
    await body(one, two)
  } finally {
    await Promise.all(stores.map((store) => store.close()))
    etcd.close()
  }
}

const rounds = 20

/** What became of each, in words: `done` or the code of the refusal. */
async function outcomesOf(works: readonly Promise<unknown>[]): Promise<readonly string[]> {
  const outcomes = await Promise.allSettled(works)
  return outcomes
    .map((outcome) => (outcome.status === 'fulfilled' ? 'done' : String(outcome.reason.code)))
    .sort()
}

describe('two managers that are asked at the same moment', () => {
  test('publish a port once', () =>
    onTwoManagers(async (one, two) => {
      for (let round = 0; round < rounds; round++) {
        const port = {
          protocol: 'tcp',
          targetPort: 80,
          publishedPort: 8000 + round,
          publishMode: 'ingress',
        } as const
        const endpoint = { mode: 'vip', networks: [], ports: [port] } as const
        const outcomes = await outcomesOf([
          one.createWorkload(declare({ name: `a${round}`, endpoint })),
          two.createWorkload(declare({ name: `b${round}`, endpoint })),
        ])
        assert.deepEqual(outcomes, ['done', 'invalidInput'])
      }
      assert.equal(one.store.view.count('workload'), rounds)
    }))

  test('do not remove a secret or a network that a service begins to use', () =>
    onTwoManagers(async (one, two) => {
      for (let round = 0; round < rounds; round++) {
        const name = `pw${round}`
        const secret = await one.createSecret({ name, labels: {}, source, data: Buffer.from('x') })
        await two.store.barrier?.()
        const file = {
          ...({ type: 'file', id: secret.id, name, target: name } as const),
          ...{ uid: '0', gid: '0', mode: 0o444 },
        } as const
        const template = buildTemplate({ containers: [buildContainer({ secrets: [file] })] })
        const outcomes = await outcomesOf([
          one.removeSecret(secret.id),
          two.createWorkload(declare({ name: `web${round}`, template })),
        ])
        assert.equal(outcomes.filter((outcome) => outcome === 'done').length, 1, outcomes.join())
        await one.store.barrier?.()
        const uses = one.store.view.byName('workload', `web${round}`).length
        assert.equal(one.store.view.byName('secret', name).length, uses)
      }
    }))

  test('make a name once', () =>
    onTwoManagers(async (one, two) => {
      for (let round = 0; round < rounds; round++) {
        const name = `n${round}`
        assert.deepEqual(
          await outcomesOf([one, two].map((control) => control.createWorkload(declare({ name })))),
          ['conflict', 'done'],
        )
      }
    }))

  test('keep the majority of the managers', () =>
    onTwoManagers(async (one, two) => {
      const nodes = [1, 2, 3, 4].map((number): ClusterNode => {
        const reachability = number === 4 ? ('unreachable' as const) : ('reachable' as const)
        const manager = { address: `10.0.0.${number}:2377`, leader: number === 1, reachability }
        return buildNode({ id: `m${number}`, role: 'manager', manager })
      })
      await one.store.commit(nodes.map((object) => ({ type: 'create', object })))
      await two.store.barrier?.()
      const demote = (control: Control, id: string): Promise<void> => {
        const node = control.store.view.get('node', id)
        assert.ok(node)
        const { spec, labels, specVersion } = node
        const declaration = { ...spec, role: 'worker', labels, source } as const
        return control.updateNode(idFrom(id), specVersion, declaration)
      }
      // Of four, one of which is out of reach, one can be spared; of the three left then, none.
      assert.deepEqual(await outcomesOf([demote(one, 'm2'), demote(two, 'm3')]), [
        'done',
        'failedPrecondition',
      ])
    }))

  test('take many changes from both, and lose none', () =>
    onTwoManagers(async (one, two) => {
      const works = Array.from({ length: 60 }, (_, index) =>
        (index % 2 === 0 ? one : two).createWorkload(declare({ name: `many${index}` })),
      )
      assert.ok((await outcomesOf(works)).every((outcome) => outcome === 'done'))
    }))
})
