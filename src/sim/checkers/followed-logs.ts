import { idFrom, rankOf, type TaskId, type Workload } from '../../model/index.ts'
import type { View } from '../../store/store.ts'

/** What each container of a task has written, one after the other, whether or not it is still there. */
export type WrittenBy = (taskId: TaskId) => readonly (readonly string[])[]

/** How far logs have been told: up to which container's which line. */
interface Place {
  readonly container: number
  readonly told: number
}

/** What a task's lines are told with: `details=1`. */
const taskLabel = /(?:^|,)com\.docker\.swarm\.task\.id=([^, ]+)/
const warning = 'warning: incomplete log stream: '

/**
 * The logs of one service as somebody follows them, from their beginning on. Each task's lines come in their order, none
 * left out and none twice, whatever breaks meanwhile; those of a node that can't be reached come once it is back, and
 * a warning names it until then.
 */
export class FollowedLogs {
  readonly service: string
  readonly #written: WrittenBy
  /** Where each task's lines may be by now: its containers may write the same. */
  readonly #placesByTask = new Map<TaskId, readonly Place[]>()
  /** What was told last of a task in the place of its lines. */
  readonly #warningByTask = new Map<TaskId, string>()

  constructor(service: string, written: WrittenBy) {
    this.service = service
    this.#written = written
  }

  /** One line with its details. Returns what is wrong with it. */
  heard(text: string): string | undefined {
    const [details = ''] = text.split(' ', 1)
    const id = taskLabel.exec(details)?.[1]
    if (id === undefined) return `a line does not tell its task: ${text}`
    const taskId: TaskId = idFrom(id)
    const line = text.slice(details.length + 1)
    if (line.startsWith(warning)) {
      this.#warningByTask.set(taskId, line.slice(warning.length).trim())
      return undefined
    }
    this.#warningByTask.delete(taskId)
    const written = this.#written(taskId)
    const before = this.#placesOf(taskId)
    const places = before.flatMap((place) => placesAfter(place, written, line))
    if (places.length > 0) {
      this.#placesByTask.set(taskId, places)
      return undefined
    }
    const told = before.map((place) => `${place.told} of container ${place.container + 1}`)
    return `${JSON.stringify(line)} came after line ${told.join(' or ')} of task ${taskId}, which wrote ${JSON.stringify(written)}`
  }

  #placesOf(taskId: TaskId): readonly Place[] {
    return this.#placesByTask.get(taskId) ?? [{ container: 0, told: 0 }]
  }

  /** Once everything has been in reach for a while: `before` has what had been written at that time. */
  missing(view: View, before: WrittenBy): string | undefined {
    const workload = this.#workload(view)
    if (!workload) return `${this.service} was removed, and its logs are still followed`
    for (const { id, nodeId, status } of view.tasksOfWorkload(workload.id)) {
      const node = nodeId && view.get('node', nodeId)
      if (!node || rankOf(status.state) < rankOf('starting') || status.state === 'orphaned')
        continue
      // What was written in a container that was removed since may be gone with it.
      const containers = before(id)
      const wanted = containers.at(-1)?.length ?? 0
      const told = Math.max(
        0,
        ...this.#placesOf(id)
          .filter(({ container }) => container >= containers.length - 1)
          .map((place) => place.told),
      )
      const why = this.#warningByTask.get(id)
      // Where its node has no log any more, that is said instead.
      const isExplained = why?.includes(node.name) && !why.endsWith('is not available')
      if (told < wanted && !isExplained)
        return `${told} of the ${wanted} lines that task ${id} had written on ${node.name} were told${why ? `, and: ${why}` : ' without a warning'}`
    }
    return undefined
  }

  /** The manager says that nothing more comes. Returns what does. */
  goesOn(view: View): string | undefined {
    const workload = this.#workload(view)
    if (workload?.spec.mode.type !== 'replicated' || workload.spec.mode.replicas === 0)
      return undefined
    const template = view.get('revision', workload.spec.revisionId)?.template
    if (template?.restart.condition !== 'any' || template.restart.maxAttempts > 0) return undefined
    return `it ended, and ${this.service} goes on: its ${workload.spec.mode.replicas} replicas are started again whenever they end`
  }

  #workload(view: View): Workload | undefined {
    return [...view.list('workload')].find(({ name }) => name === this.service)
  }
}

/** Where a line leads: on in the same container, or to the beginning of a later one. */
function placesAfter(
  { container, told }: Place,
  written: readonly (readonly string[])[],
  line: string,
): readonly Place[] {
  return written.flatMap((lines, at) => {
    const next = at === container ? told : 0
    return at >= container && lines[next] === line ? [{ container: at, told: next + 1 }] : []
  })
}
