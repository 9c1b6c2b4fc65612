import { isStopWanted } from '../../model/index.ts'
import { explainWorkload, observeWorkload } from '../../orchestrator/index.ts'
import type { View } from '../../store/store.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Checker } from '../judge.ts'

/** How long an object may be on its way before it has to say what it waits for, in ms. */
const patienceMs = 15_000

/** Every object that is not as declared says why. */
export function reasons(cluster: SimulatedCluster): Checker {
  let seconds = 0
  /** Objects that wait without a word, and since when, in true ms: what is stored has the time of a clock that may be wrong. */
  let silentSinceMs = new Map<string, number>()
  return {
    name: 'every unconverged object has a reason',
    second(view) {
      seconds += 1
      const { nowMs } = cluster.time
      // Without a leader nobody can say anything new.
      if (seconds % 5 !== 0 || nowMs - cluster.ledSinceMs < patienceMs || !cluster.isLed)
        return undefined
      const silent = new Map<string, number>()
      /** Whether an object that waits without a word, as it is now, has done so for too long. */
      const isTooLong = ({ id, specVersion = 0 }: { id: string; specVersion?: number }) => {
        const key = `${id} ${specVersion}`
        const sinceMs = silentSinceMs.get(key) ?? nowMs
        silent.set(key, sinceMs)
        return nowMs - Math.max(sinceMs, cluster.ledSinceMs) > patienceMs
      }
      const what = wrongWith(view, nowMs, isTooLong)
      silentSinceMs = silent
      return what
    },
  }
}

function wrongWith(
  view: View,
  nowMs: number,
  isTooLong: (silent: { readonly id: string; readonly specVersion?: number }) => boolean,
): string | undefined {
  for (const task of view.list('task')) {
    const { state, error, message } = task.status
    if (state !== 'new' && state !== 'pending' && message === '')
      return `task ${task.id} is ${state} without a word`
    const waits = (state === 'new' || state === 'pending') && !error && !isStopWanted(task)
    if (waits && isTooLong({ id: task.id }))
      return `task ${task.id} has been ${state} for ${patienceMs / 1000} s without a reason`
    if ((state === 'failed' || state === 'rejected') && !error)
      return `task ${task.id} is ${state} without a reason`
  }
  for (const network of view.list('network')) {
    if (network.spec.predefined || network.status.subnet !== undefined || network.status.error)
      continue
    if (isTooLong(network)) return `network ${network.name} has no subnet, and no reason`
  }
  for (const endpoint of view.list('endpoint')) {
    const { vips, error, ports } = endpoint.status
    const isWhole =
      (endpoint.spec.mode === 'dnsrr' ||
        endpoint.spec.networks.every(({ networkId }) =>
          vips.some((vip) => vip.networkId === networkId),
        )) &&
      ports.length === endpoint.spec.ports.length
    if (!isWhole && !error && isTooLong(endpoint))
      return `endpoint ${endpoint.name} lacks addresses or ports, and a reason`
  }
  for (const { id, name, specVersion } of view.list('workload')) {
    const slice = observeWorkload(view, id)
    if (slice?.workload.spec.mode.type !== 'replicated') continue
    const { replicas } = slice.workload.spec.mode
    const up = slice.tasks.filter(
      ({ status, desiredState }) =>
        status.state === 'running' && status.ready && desiredState === 'running',
    )
    const { reasons: told } = explainWorkload(slice, nowMs)
    if (up.length < replicas && told.length === 0 && isTooLong({ id, specVersion }))
      return `${name} has ${up.length} of ${replicas} tasks, and explain gives no reason`
  }
  return undefined
}
