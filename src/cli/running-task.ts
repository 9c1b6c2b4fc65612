import { UserError } from '../base/index.ts'
import { type Engine, openEngine } from '../engine/index.ts'
import { type Client, hostOf, openClient } from './client.ts'
import type { CliContext } from './command.ts'

/** A task that runs, as the manager tells where it is. */
export interface RunningTask {
  readonly ID: string
  /** `web.1`. */
  readonly Name: string
  readonly Node: { readonly ID: string; readonly Hostname: string }
  readonly ContainerID: string
  readonly Tty: boolean
}

/** The task that runs under this name: a service, service.slot, the name of a container, or the beginning of a task's id. */
export function findRunningTask(client: Client, name: string): Promise<RunningTask> {
  return client.call<RunningTask>(`/skep/v1/tasks/${encodeURIComponent(name)}/place`)
}

/** Finds a task and opens the Engine API on the manager, which passes calls about its container to its node. */
export async function withTaskEngine<T>(
  context: CliContext,
  name: string,
  work: (task: RunningTask, engine: Engine) => Promise<T>,
): Promise<T> {
  const where = hostOf(context)
  if (where.startsWith('tcp:')) {
    throw new UserError('unsupported', `skep goes into tasks by a socket only, not by ${where}`, {
      next: 'Forward the socket: ssh -nNT -L /tmp/skep.sock:/run/skep/docker.sock <manager> & and use -H unix:///tmp/skep.sock.',
    })
  }
  const task = await findRunningTask(await openClient(context), name)
  const engine = openEngine({ address: where })
  try {
    return await work(task, engine)
  } finally {
    engine.close()
  }
}
