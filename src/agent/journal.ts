import type { TaskId, TaskStatus } from '../model/index.ts'
import type { Assignments } from '../wire/index.ts'

/** What a node knew last: enough to go on with no manager in reach, also after a reboot. */
export interface JournalEntry {
  readonly assignments: Assignments
  /** The agent's own word on its tasks, which is newer than that in the assignments. */
  readonly statuses: ReadonlyMap<TaskId, TaskStatus>
  /** When a manager was last in reach, as far as this was written down. */
  readonly heardAtMs?: number
}

/** Where a node keeps it. Durable once a call resolves, or as it was before; nothing secret is readable in it. */
export interface Journal {
  /** Undefined where there is none, or none that can be read: the managers know it all. */
  read(): Promise<JournalEntry | undefined>
  /** Replaces all of it. */
  write(entry: JournalEntry): Promise<void>
  /** Adds the last word on tasks that have ended: in what is read back it stands in the place of what was written before. */
  addEnds(ends: ReadonlyMap<TaskId, TaskStatus>): Promise<void>
}
