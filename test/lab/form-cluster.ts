import type { LabHost } from './host.ts'

/** Begins a cluster on `first`, its leader, which the others join in the order given. */
export async function formCluster(
  first: LabHost,
  others: Readonly<Partial<Record<'manager' | 'worker', readonly LabHost[]>>>,
): Promise<void> {
  await first.skepDockerOk('swarm', 'init', '--advertise-addr', first.address)
  for (const role of ['manager', 'worker'] as const) {
    for (const host of others[role] ?? []) await joinCluster(host, first, role)
  }
}

/** Lets a host join by a manager, with further flags of `docker swarm join` if need be. */
export async function joinCluster(
  host: LabHost,
  by: LabHost,
  role: 'manager' | 'worker',
  ...flags: readonly string[]
): Promise<void> {
  const token = await by.skepDockerOk('swarm', 'join-token', '-q', role)
  await host.skepDockerOk('swarm', 'join', '--token', token, ...flags, `${by.address}:2377`)
}
