import { unreachable } from '../base/index.ts'
import type { TaskAssignment } from '../wire/index.ts'

/** Longest a task is waited for to listen where its endpoints send, in ms. */
const endpointMsMax = 3_000
/** The same where only its image says where it may listen, in ms: nobody asked for that, but nobody says better. */
const imageMsMax = 10_000
/** Images expose ports that not every program in them serves: once one listens, the others are waited for so long, in ms. */
const imageRestMs = 1_000

export interface Awaited {
  readonly ports: readonly { readonly port: number }[]
  readonly by: 'endpoints' | 'image'
}

/**
 * The tcp ports that a task without a health check has to listen on before it is ready: those that its endpoints publish; where they
 * publish none, and others may reach it on a network all the same, those that its image exposes.
 */
export function portsAwaited(
  { endpointPorts, task }: Pick<TaskAssignment, 'endpointPorts' | 'task'>,
  exposedTcpPorts: readonly number[],
): Awaited {
  const ports = endpointPorts.filter(({ protocol }) => protocol === 'tcp')
  if (endpointPorts.length > 0 || task.addresses.length === 0) return { ports, by: 'endpoints' }
  return { ports: exposedTcpPorts.map((port) => ({ port })), by: 'image' }
}

export type Listening =
  /** `remark`: what it does not do that it was waited for. */
  | { readonly type: 'over'; readonly remark?: string }
  | { readonly type: 'wait'; readonly message: string }

/** Whether the wait is over. `heardMs`: how long one of the ports has been listened on; undefined: none is. */
export function decideListening(
  { ports, by }: Awaited,
  silent: readonly { readonly port: number }[],
  waitedMs: number,
  heardMs: number | undefined,
): Listening {
  if (silent.length === 0) return { type: 'over' }
  const named = `port ${silent.map(({ port }) => `${port}/tcp`).join(', ')}`
  const wait = { type: 'wait', message: `starting: nothing listens on ${named} yet` } as const
  switch (by) {
    case 'endpoints':
      return waitedMs < endpointMsMax
        ? wait
        : { type: 'over', remark: `nothing listens on ${named}` }
    case 'image': {
      const isRest = silent.length < ports.length && (heardMs ?? 0) >= imageRestMs
      return waitedMs < imageMsMax && !isRest
        ? wait
        : { type: 'over', remark: `nothing listens on ${named}, which its image exposes` }
    }
    default:
      return unreachable(by)
  }
}
