import { UserError } from '../base/index.ts'
import type { CommandResult } from './command.ts'
import { runInOrder } from './command-batch.ts'
import { hostNamespace } from './namespace.ts'
import { changeOverlay, type OverlayChange, type OverlayPlan, shapeOf } from './overlay-plan.ts'
import { overlayCommands, parseOverlay, type SeenOverlay } from './overlay-state.ts'

/** The part of cluster networks that lies on other nodes: a VXLAN device and its entries for each network that has one. */
export class Overlay {
  readonly #owner: string
  /** What the kernel has of ours, as last told; undefined: it has to be looked at. */
  #applied: ReadonlyMap<string, OverlayPlan> | undefined

  /** `owner` marks devices as this data plane's. */
  constructor(owner: string) {
    this.#owner = `skep:${owner}`
  }

  /** Makes the kernel be as planned. What is as it was told last is not told again. */
  async apply(plans: ReadonlyMap<string, OverlayPlan>): Promise<void> {
    const before = this.#applied
    if (!before) {
      await this.repair(plans)
      return
    }
    const changes = [...plans.values()].map((plan) => {
      const old = before.get(plan.device)
      return changeOverlay(plan, old && stateOf(old), this.#owner)
    })
    const wanted = byDevice(plans)
    const gone = [...before.values()].filter(({ device }) => !wanted.has(device))
    await this.#tell([
      ...changes,
      ...gone.map((plan) => removal(plan.device, stateOf(plan), plan.bridge)),
    ])
    this.#applied = wanted
  }

  /** Looks at what is there and puts right what differs. Resolves with what did, in words. */
  async repair(
    plans: ReadonlyMap<string, OverlayPlan>,
    listings?: readonly CommandResult[],
  ): Promise<readonly string[]> {
    const seen = await this.#look(listings)
    const changes = [...plans.values()].map((plan) =>
      changeOverlay(plan, seen.get(plan.device), this.#owner),
    )
    const wanted = byDevice(plans)
    const gone = [...seen.values()].filter(
      ({ device, owner }) => owner === this.#owner && !wanted.has(device),
    )
    this.#applied = undefined
    await this.#tell([
      ...changes,
      ...gone.map((state) => removal(state.device, state, state.shape.split(' ')[3] ?? '')),
    ])
    this.#applied = wanted
    return [
      ...changes.flatMap(({ found }) => found),
      ...gone.map(({ device }) => `the VXLAN device ${device} was left over`),
    ]
  }

  async clear(): Promise<void> {
    await this.repair(new Map())
    this.#applied = undefined
  }

  async #look(
    listings: readonly CommandResult[] | undefined,
  ): Promise<ReadonlyMap<string, SeenOverlay>> {
    const results = listings ?? (await runInOrder(overlayCommands.map((words) => ({ words }))))
    return parseOverlay(results.map(({ stdout }) => stdout))
  }

  /** Each kind of change is one process. What fails leaves what is there in doubt: the next round looks. */
  async #tell(changes: readonly OverlayChange[]): Promise<void> {
    const links = changes.flatMap((change) => change.links)
    const entries = changes.flatMap((change) => change.entries)
    const forwarding = changes.flatMap((change) => change.forwarding)
    if (links.length + entries.length + forwarding.length === 0) return
    this.#applied = undefined
    await batch('ip', [...links, ...entries])
    await batch('bridge', forwarding)
  }
}

function byDevice(plans: ReadonlyMap<string, OverlayPlan>): ReadonlyMap<string, OverlayPlan> {
  return new Map([...plans.values()].map((plan) => [plan.device, plan]))
}

/** What the kernel has when it was told a plan. */
function stateOf(plan: OverlayPlan) {
  const nodeByMac = new Map([...plan.places.values()].map(({ mac, node }) => [mac, node]))
  return {
    shape: shapeOf(plan),
    mtu: plan.mtu,
    isUp: true,
    neighbours: new Map([...plan.places].map(([address, { mac }]) => [address, mac])),
    destinations: nodeByMac,
    forwarded: new Set(nodeByMac.keys()),
  }
}

/** The bridge may be gone already, and its entries with it: those are taken back by a forgiving command. */
function removal(
  device: string,
  state: { readonly neighbours: ReadonlyMap<string, string> },
  bridge: string,
): OverlayChange {
  return {
    links: [
      ...(bridge === ''
        ? []
        : [...state.neighbours.keys()].map((address) => `neigh delete ${address} dev ${bridge}`)),
      `link delete dev ${device}`,
    ],
    entries: [],
    forwarding: [],
    found: [],
  }
}

async function batch(program: 'ip' | 'bridge', lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return
  // What is not there any more need not be deleted: one such line does not hold up the others.
  const result = await hostNamespace.run(
    program,
    ['-force', '-batch', '-'],
    `${lines.join('\n')}\n`,
  )
  const failures = (result?.stderr ?? '')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('Command failed') && !isHarmless(line))
  const [first] = failures
  if (first === undefined) return
  const isTaken = /File exists/.test(first)
  throw new UserError('internal', `the kernel did not take the cluster network: ${first}`, {
    next: isTaken
      ? 'Another VXLAN device on this host has the same identifier and port: remove it, or create the network with another.'
      : 'Check that the kernel has VXLAN (modinfo vxlan) and that the daemon runs as root.',
  })
}

function isHarmless(line: string): boolean {
  return /Cannot find device|No such (file|device|process)|does not exist/i.test(line)
}
