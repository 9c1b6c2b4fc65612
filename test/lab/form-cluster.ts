import { eventually } from '../support/daemon.ts'
import type { LabHost } from './host.ts'

/** Begins a cluster on `first`, its leader, which the others join in the order given. */
export async function formCluster(
  first: LabHost,
  others: Readonly<Partial<Record<'manager' | 'worker', readonly LabHost[]>>>,
): Promise<void> {
  await first.skepDockerOk('swarm', 'init', '--advertise-addr', first.address)
  await untilReady(first, first)
  for (const role of ['manager', 'worker'] as const) {
    for (const host of others[role] ?? []) await joinCluster(host, first, role)
  }
}

/** Lets a host join by a manager, with further flags of `docker swarm join` if need be, and waits until tasks may run there. */
export async function joinCluster(
  host: LabHost,
  by: LabHost,
  role: 'manager' | 'worker',
  ...flags: readonly string[]
): Promise<void> {
  const token = await by.skepDockerOk('swarm', 'join-token', '-q', role)
  await host.skepDockerOk('swarm', 'join', '--token', token, ...flags, `${by.address}:2377`)
  await untilReady(by, host)
}

/** `swarm init` and `swarm join` wait for that by themselves, but not for as long as a busy machine may need. */
async function untilReady(by: LabHost, host: LabHost): Promise<void> {
  await eventually(`${host.name} is ready`, async () => {
    const list = await by.skepDocker('node', 'ls', '--format', '{{.Hostname}} {{.Status}}')
    return list.stdout.split('\n').includes(`${host.name} Ready`)
  })
}
