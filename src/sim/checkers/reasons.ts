import { isStopWanted } from '../../model/index.ts'
import { explainWorkload, observeWorkload } from '../../orchestrator/index.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Checker } from '../judge.ts'

/** How long an object may be on its way before it has to say what it waits for, in ms. */
const patienceMs = 15_000

/** Every object that is not as declared says why. */
export function reasons(cluster: SimulatedCluster): Checker {
  let seconds = 0
  /** Tasks that wait without a word, and since when. */
  const silentSinceMs = new Map<string, number>()
  return {
    name: 'every unconverged object has a reason',
    second(view) {
      seconds += 1
      const { nowMs } = cluster.time
      // Without a leader nobody can say anything new.
      if (seconds % 5 !== 0 || nowMs - cluster.ledSinceMs < patienceMs || !cluster.isLed)
        return undefined
      const isOld = ({ updatedAtMs }: { readonly updatedAtMs: number }) =>
        nowMs - updatedAtMs > patienceMs
      for (const task of view.list('task')) {
        const { state, error, message } = task.status
        if (state !== 'new' && state !== 'pending' && message === '')
          return `task ${task.id} is ${state} without a word`
        const waits = (state === 'new' || state === 'pending') && !error && !isStopWanted(task)
        if (!waits) silentSinceMs.delete(task.id)
        else if (!silentSinceMs.has(task.id)) silentSinceMs.set(task.id, nowMs)
        const sinceMs = silentSinceMs.get(task.id) ?? nowMs
        if (nowMs - Math.max(sinceMs, cluster.ledSinceMs) > patienceMs)
          return `task ${task.id} has been ${state} for ${(nowMs - sinceMs) / 1000} s without a reason`
        if ((state === 'failed' || state === 'rejected') && !error)
          return `task ${task.id} is ${state} without a reason`
      }
      for (const network of view.list('network')) {
        if (network.spec.predefined || network.status.subnet !== undefined || network.status.error)
          continue
        if (isOld(network)) return `network ${network.name} has no subnet, and no reason`
      }
      for (const endpoint of view.list('endpoint')) {
        const { vips, error, ports } = endpoint.status
        const isWhole =
          (endpoint.spec.mode === 'dnsrr' ||
            endpoint.spec.networks.every(({ networkId }) =>
              vips.some((vip) => vip.networkId === networkId),
            )) &&
          ports.length === endpoint.spec.ports.length
        if (!isWhole && !error && isOld(endpoint))
          return `endpoint ${endpoint.name} lacks addresses or ports, and a reason`
      }
      for (const { id, name, updatedAtMs } of view.list('workload')) {
        if (nowMs - updatedAtMs <= patienceMs) continue
        const slice = observeWorkload(view, id)
        if (slice?.workload.spec.mode.type !== 'replicated') continue
        const { replicas } = slice.workload.spec.mode
        const up = slice.tasks.filter(
          ({ status, desiredState }) =>
            status.state === 'running' && status.ready && desiredState === 'running',
        )
        const { reasons: told } = explainWorkload(slice, nowMs)
        if (up.length < replicas && told.length === 0)
          return `${name} has ${up.length} of ${replicas} tasks, and explain gives no reason`
      }
      return undefined
    },
  }
}
