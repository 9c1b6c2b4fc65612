import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type AnyObject, kinds, type NetworkId } from '../model/index.ts'
import { renderHostRules } from '../network/host-rules.ts'
import { buildZones } from '../network/resolver/zones.ts'
import { elementsBySet } from '../network/ruleset.ts'
import { OneNode } from './one-node.ts'

const hourMs = 3_600_000
/** Tasks of the service that stays. */
const standing = 3
/** Time for each step of a turn: tasks start, are drained and end in it. */
const stepMs = 60_000
/** Memory that a day may need more than its first hours, in bytes: some 8 KiB a turn. Compiled code and tables take a third of it. */
const heapGrowthMax = 3 * 1024 * 1024

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

/** One turn: a service with a VIP and a published port is deployed, scaled and removed; every tenth with a network of its own. */
async function turn(sim: OneNode, front: NetworkId, number: number): Promise<void> {
  const own = number % 10 === 0 ? await createNetwork(sim, 'own') : undefined
  const endpoint = {
    mode: 'vip',
    networks: [front, ...(own ? [own] : [])].map((networkId) => ({ networkId, aliases: ['shop'] })),
    ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' }],
  } as const
  const id = await sim.create('web', 2, { endpoint })
  await sim.clock.advance(stepMs)
  assert.equal(sim.running(id).length, 2)
  await sim.update(id, 4, { endpoint })
  await sim.clock.advance(stepMs)
  assert.equal(sim.routed().length, 4 + standing)
  await sim.control.removeWorkload(id)
  await sim.clock.advance(stepMs)
  if (own) await sim.control.removeNetwork(own)
  await sim.clock.advance(stepMs)
}

async function createNetwork(sim: OneNode, name: string): Promise<NetworkId> {
  const { id } = await sim.control.createNetwork({
    name,
    labels: {},
    spec: {
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    source: { dialect: 'docker', document: {} },
  })
  return id
}

/** All that could grow: what the store has, what addresses are given out, what the node's kernel and resolver are told. */
function footprint({ store, runtime, dataPlane }: OneNode): Readonly<Record<string, number>> {
  const { networks, endpoints, tasks, neighbours } = dataPlane.desired
  const { pages, hooks } = renderHostRules({ table: 'skep', networks, endpoints, neighbours })
  const zones = buildZones({ networks, endpoints, tasks })
  const objects = kinds.map((kind) => [kind, [...store.view.list(kind)].length] as const)
  const stored = kinds.flatMap((kind) => [...store.view.list(kind)])
  return {
    ...Object.fromEntries(objects),
    addresses: stored.reduce((sum, object) => sum + addressesOf(object), 0),
    networks: networks.length,
    endpoints: endpoints.length,
    tasks: tasks.length,
    neighbours: neighbours?.size ?? 0,
    rules: pages.flatMap(({ chains }) => [...chains.values()].flat()).length + hooks.length,
    elements: [...elementsBySet(pages).values()].reduce((sum, set) => sum + set.size, 0),
    names: JSON.stringify(zones).length,
    containers: runtime.runningCount(),
  }
}

function addressesOf(object: AnyObject): number {
  return JSON.stringify(object).match(/"(?:address|vip|subnet)":"\d/g)?.length ?? 0
}

test('a day of deploying, scaling and removing leaves nothing behind', async () => {
  const sim = new OneNode(24)
  await sim.start()
  const front = await createNetwork(sim, 'front')
  const networks = [{ networkId: front, aliases: [] }]
  const ports = [
    { protocol: 'tcp', targetPort: 80, publishedPort: 9090, publishMode: 'ingress' } as const,
  ]
  await sim.create('stays', standing, { endpoint: { mode: 'vip', networks, ports } })
  let number = 0
  const churnFor = async (hours: number) => {
    const endMs = sim.clock.nowMs() + hours * hourMs
    while (sim.clock.nowMs() < endMs) await turn(sim, front, ++number)
    collectGarbage()
    return process.memoryUsage().heapUsed
  }
  const heapBefore = await churnFor(4)
  const before = footprint(sim)
  const heapAfter = await churnFor(24)
  assert.deepEqual(footprint(sim), before)
  const growth = heapAfter - heapBefore
  assert.ok(growth < heapGrowthMax, `the heap grew by ${growth} bytes in a day`)
  await sim.stop()
})
