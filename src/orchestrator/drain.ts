import { isStopWanted, isTerminal, type NodeId, type Task, type TaskId } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { explainTask } from './explain.ts'
import { Floor } from './floor.ts'
import { keepsData } from './picture.ts'
import { observeWorkload } from './slice.ts'

/** What becomes of one task when its node is drained, or why it still is there. */
export interface LeavingTask {
  readonly taskId: TaskId
  readonly name: string
  readonly state: Task['status']['state']
  /**
   * - `move`: its successor serves first.
   * - `moveStopFirst`: it stops, then its successor starts.
   * - `stop`: it has no successor, and is to have none: it runs once on each node, or is stopping already.
   * - `strand`: it stops for want of another node.
   */
  readonly how: 'move' | 'moveStopFirst' | 'stop' | 'strand'
  readonly because: string
}

/** The tasks that are on a node, and what a drain makes of each. For a node that is being drained: what is left. Pure. */
export function observeDrain(view: View, nodeId: NodeId, nowMs: number): readonly LeavingTask[] {
  const isDrained = view.get('node', nodeId)?.spec.availability === 'drain'
  let floor: Floor | undefined
  const left: LeavingTask[] = []
  for (const task of view.tasksOfNode(nodeId)) {
    if (isTerminal(task.status.state)) continue
    floor ??= new Floor(view)
    const { state } = task.status
    const slice = observeWorkload(view, task.workloadId)
    const name = `${slice?.workload.name ?? task.name}.${task.slot ?? nodeId}`
    const plan = planFor(view, nodeId, task, floor)
    const said =
      isDrained && slice ? explainTask(slice, task.id, nowMs)?.reasons.join('; ') : undefined
    left.push({ taskId: task.id, name, state, how: plan.how, because: said || plan.because })
  }
  return left
}

function planFor(
  view: View,
  nodeId: NodeId,
  task: Task,
  floor: Floor,
): Pick<LeavingTask, 'how' | 'because'> {
  if (isStopWanted(task)) return { how: 'stop', because: 'it is stopping already' }
  const workload = view.get('workload', task.workloadId)
  const revision = workload && view.get('revision', workload.spec.revisionId)
  if (!workload || !revision) return { how: 'stop', because: 'its service was removed' }
  const { type } = workload.spec.mode
  if (type === 'global' || type === 'globalJob')
    return { how: 'stop', because: 'it runs once on each node' }
  const others = floor.candidates(revision).filter(({ node }) => node.id !== nodeId)
  if (others.length === 0) return { how: 'strand', because: 'no other node may run it' }
  const target = others.find((to) =>
    floor.hasRoom(to, revision, view.tasksOfWorkload(workload.id), task),
  )
  if (!target) return { how: 'strand', because: 'no other node has room for it' }
  floor.move(task, target)
  if (type === 'replicatedJob') return { how: 'moveStopFirst', because: 'a job must not run twice' }
  return revision.template.containers.some(keepsData)
    ? { how: 'moveStopFirst', because: 'two tasks must not write to the same volume or folder' }
    : { how: 'move', because: 'its successor serves before it stops' }
}
