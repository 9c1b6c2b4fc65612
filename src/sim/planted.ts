/**
 * Faults that are planted into the code, one at a time, to see that the simulator finds each. The code on disk is never
 * touched: a worker process reads a changed source (`plant`). A source that no longer has what a fault replaces fails
 * the test beside this file.
 */
import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

export interface PlantedFault {
  readonly name: string
  /** What it breaks, in words. */
  readonly what: string
  readonly edits: readonly Edit[]
}

interface Edit {
  /** From `src/` on. */
  readonly file: string
  /** Text that is there once. */
  readonly from: string
  readonly to: string
}

export const plantedFaults: readonly PlantedFault[] = [
  {
    name: 'states-go-back',
    what: 'an agent that starts anew reports every task from its beginning, and the manager believes it',
    edits: [
      {
        file: 'model/task.ts',
        from: 'return rankOf(reported.state) >= rankOf(known.state) ? reported : known',
        to: 'return rankOf(reported.state) >= 0 ? reported : known',
      },
      {
        file: 'agent/agent.ts',
        from: '    this.#status = assignment.task.status\n',
        to: "    this.#status = { ...assignment.task.status, state: 'accepted', ready: false }\n",
      },
    ],
  },
  {
    name: 'no-fence',
    what: 'a deposed leader may still write',
    edits: [
      {
        file: 'store/store-core.ts',
        from: 'fence !== undefined && fence !== this.#epochStaged',
        to: 'fence !== undefined && fence > this.#epochStaged',
      },
    ],
  },
  {
    name: 'acknowledged-early',
    what: 'a write is acknowledged before the disk has it',
    edits: [
      {
        file: 'store/store-core.ts',
        from: 'const persisted = this.#persist(batch)',
        to: 'void this.#persist(batch)\n      const persisted = Promise.resolve(undefined as UserError | undefined)',
      },
    ],
  },
  {
    name: 'address-twice',
    what: 'the allocator forgets which addresses tasks hold',
    edits: [
      {
        file: 'allocator/allocator.ts',
        from: 'if (kept) this.#hold(kept, true)',
        to: "if (kept && kept.kind !== 'task') this.#hold(kept, true)",
      },
    ],
  },
  {
    name: 'port-leak',
    what: 'a published port is never free again',
    edits: [
      {
        file: 'allocator/allocator.ts',
        from: '      holders?.delete(id)\n',
        to: '',
      },
    ],
  },
  {
    name: 'too-parallel',
    what: 'an update replaces more slots at once than it may',
    edits: [
      {
        file: 'orchestrator/update.ts',
        from: 'dirty.length : policy.parallelism - inProgress',
        to: 'dirty.length : policy.parallelism',
      },
    ],
  },
  {
    name: 'start-first-stops',
    what: 'a start-first update stops the old task before the new one is up',
    edits: [
      {
        file: 'orchestrator/place.ts',
        from: '    if (!keeperUp && mayWait) continue\n',
        to: '',
      },
    ],
  },
  {
    name: 'stop-first-overlaps',
    what: 'a stop-first successor does not wait for the task it replaces',
    edits: [
      {
        file: 'orchestrator/place.ts',
        from: 'if (!before || !mayRun(picture, before)) return delayedUntilMs',
        to: 'if (before !== null) return delayedUntilMs',
      },
    ],
  },
  {
    name: 'failures-ignored',
    what: 'an update goes on however many of its tasks fail',
    edits: [
      {
        file: 'orchestrator/update.ts',
        from: '<= policy.maxFailureRatio) return undefined',
        to: '<= policy.maxFailureRatio + 1) return undefined',
      },
    ],
  },
  {
    name: 'over-committed',
    what: 'the scheduler does not look at what is reserved',
    edits: [
      {
        file: 'scheduler/node-state.ts',
        from: 'this.memoryBytesHeld += sign * holding.memoryBytes',
        to: 'this.memoryBytesHeld += 0 * sign',
      },
    ],
  },
  {
    name: 'constraints-ignored',
    what: 'a constraint with != holds for every node',
    edits: [
      {
        file: 'model/placement.ts',
        from: "return (actual.toLowerCase() === value.toLowerCase()) === (operator === '==')",
        to: "return operator === '!=' || actual.toLowerCase() === value.toLowerCase()",
      },
    ],
  },
  {
    name: 'drain-unacknowledged',
    what: 'a task counts as out of traffic before every node has said so',
    edits: [
      {
        file: 'dispatcher/traffic.ts',
        from: "  if (task.traffic === 'draining' && !isAcknowledged(task.version)) return 'draining'\n",
        to: '',
      },
    ],
  },
  {
    name: 'secret-stays',
    what: 'a node keeps secrets after its last task that needs them has ended',
    edits: [
      {
        file: 'dispatcher/dispatcher.ts',
        from: 'for (const id of sent.keys()) if (!wanted.has(id)) remove.push(id)',
        to: 'for (const id of sent.keys()) if (!wanted.has(id) && !immutable) remove.push(id)',
      },
    ],
  },
  {
    name: 'left-behind',
    what: 'an agent that starts anew leaves the containers of forgotten tasks where they are',
    edits: [
      {
        file: 'agent/agent.ts',
        from: "      this.#options.log.info('removing a container whose task is gone', { taskId })\n      void this.#removeContainer(taskId)\n",
        to: '',
      },
    ],
  },
  {
    name: 'stale-reads',
    what: 'a read does not wait for what another manager has acknowledged',
    edits: [
      {
        file: 'api/docker/server.ts',
        from: '  if (isAboutCluster(route)) await api.control()?.store.barrier?.()\n',
        to: '',
      },
    ],
  },
  {
    name: 'lost-wake-up',
    what: 'the scheduler is not woken by commits',
    edits: [
      {
        file: 'manager/manager.ts',
        from: '    wakeAllocator.ring()\n    wakeScheduler.ring()\n',
        to: '    wakeAllocator.ring()\n',
      },
    ],
  },
  {
    name: 'no-reason',
    what: 'a task that fits nowhere is not told why',
    edits: [
      {
        file: 'scheduler/explain.ts',
        from: "if (parts.length === 0) return 'no suitable node (there are no nodes)'",
        to: "if (parts.length >= 0) return ''",
      },
    ],
  },
  {
    name: 'never-done',
    what: 'the scheduler writes the same refusal again and again',
    edits: [
      {
        file: 'scheduler/scheduler.ts',
        from: 'status: { ...task.status, error: each.reason }',
        to: 'status: { ...task.status, message: each.reason }',
      },
    ],
  },
  {
    name: 'restless',
    what: 'the same report of a node is written again and again',
    edits: [
      {
        file: 'agent/agent.ts',
        from: 'const drift = await dataPlane.audit()',
        to: 'const drift = await dataPlane.audit()\n        for (const taskId of this.#runners.keys()) this.#unreported.add(taskId)\n        this.#reportWanted.ring()',
      },
      {
        file: 'dispatcher/dispatcher.ts',
        from: 'if (accepted === task.status || isDeepEqual(accepted, task.status)) continue',
        to: 'if (accepted === task.status) continue',
      },
    ],
  },
  {
    name: 'vote-stays',
    what: 'a manager that was demoted keeps its vote',
    edits: [
      {
        file: 'daemon/roster.ts',
        from: '    await removeMember({ client, name: id, peerUrl: peerUrlOf(manager.address) })\n',
        to: '',
      },
    ],
  },
  {
    name: 'logs-cut-short',
    what: 'logs of a service do not say which nodes could not be asked',
    edits: [
      {
        file: 'api/docker/logs.ts',
        from: '      if (missing.size > 0) writeEnd(',
        to: '      if (missing.size > 1_000) writeEnd(',
      },
    ],
  },
  {
    name: 'lines-again',
    what: 'logs that are followed begin anew once a node is back, instead of where they broke off',
    edits: [
      {
        file: 'api/docker/logs.ts',
        from: "if (this.#at === '') return wish",
        to: "if (this.#at !== '!') return wish",
      },
    ],
  },
  {
    name: 'follower-left-behind',
    what: 'logs that are followed do not go on once a node is back',
    edits: [
      {
        file: 'api/docker/logs.ts',
        from: "if (node.status.state === 'ready') return true",
        to: "if (node.status.state === 'ready') return false",
      },
    ],
  },
  {
    name: 'end-forgotten',
    what: 'an agent that starts anew does not know of tasks that have ended within the last second',
    edits: [
      {
        file: 'agent/agent.ts',
        from: '      await this.#keepEnds(reports)\n',
        to: '',
      },
    ],
  },
  {
    name: 'delay-forgotten',
    what: 'nobody wakes up when a restart delay ends',
    edits: [
      {
        file: 'orchestrator/place.ts',
        from: '    plan.wakeAt(untilMs)\n    return\n',
        to: '    return\n',
      },
    ],
  },
]

const sourceRoot = resolve(import.meta.dirname, '..')

/** The source with a fault in it. Throws when it does not have what the fault replaces, exactly once. */
export function withEdit({ file, from, to }: Edit, source: string): string {
  const parts = source.split(from)
  if (parts.length !== 2) {
    throw new Error(
      `src/${file} has "${from.trim()}" ${parts.length - 1} times: a planted fault of src/sim/planted.ts has to follow the code`,
    )
  }
  return parts.join(to)
}

export function readSource({ file }: Edit): string {
  return readFileSync(resolve(sourceRoot, file), 'utf8')
}

/** From now on this process loads the code with the fault in it. Call it before anything of the cluster is loaded. */
export function plant(name: string): void {
  const fault = plantedFaults.find((one) => one.name === name)
  if (!fault) {
    const known = plantedFaults.map((one) => one.name).join(', ')
    throw new Error(`no fault "${name}" can be planted: there are ${known}`)
  }
  const textByUrl = new Map<string, string>()
  for (const edit of fault.edits) {
    const url = pathToFileURL(resolve(sourceRoot, edit.file)).href
    textByUrl.set(url, withEdit(edit, textByUrl.get(url) ?? readSource(edit)))
  }
  registerHooks({
    load(url, context, nextLoad) {
      const source = textByUrl.get(url)
      if (source === undefined) return nextLoad(url, context)
      return { format: 'module-typescript', source, shortCircuit: true }
    },
  })
}
