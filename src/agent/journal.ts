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

/** Where a node keeps it. Whole and durable, or as it was before; nothing secret is readable in it. */
export interface Journal {
  /** Undefined where there is none, or none that can be read: the managers know it all. */
  read(): Promise<JournalEntry | undefined>
  write(entry: JournalEntry): Promise<void>
}
