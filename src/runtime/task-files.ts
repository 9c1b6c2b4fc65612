import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'
import { promisify } from 'node:util'
import { messageOf, UserError } from '../base/index.ts'
import type { TaskId } from '../model/index.ts'

/** One secret or config as its task should see it. */
export interface TaskFile {
  /** In words, for errors: `secret "db_password"`. */
  readonly what: string
  /** Absolute path in the container, normalised. */
  readonly target: string
  readonly data: Uint8Array
  readonly uid: number
  readonly gid: number
  /** Permission bits. */
  readonly mode: number
}

/** What to bind, read-only, where. */
export interface FileMount {
  readonly source: string
  readonly target: string
}

/** Where secrets belong in a container. */
export const secretsTarget = '/run/secrets'
/** Size of the host's tmpfs: 500 kB a file leave room for thousands. */
const filesBytesMax = '1g'

const isTaskId = /^[0-9a-z]{25}$/

const tmpfsMagic = 0x01021994
const ramfsMagic = 0x858458f6

/**
 * The files of tasks on this host, secrets and configs: on a tmpfs that only root may enter, so that none of them ever
 * touches a disk. A container gets them by read-only bind mounts, so they are in no image layer and in no answer of the
 * engine. They outlive the daemon and go with their task.
 *
 * Everything for `/run/secrets` is one folder and one mount; any other target is a mount of its own.
 */
export class TaskFiles {
  readonly #secretsDir: string
  /** Where an earlier version kept configs, on disk: containers it made may have them mounted. */
  readonly #oldConfigsDir: string
  #tmpfs: Promise<void> | undefined

  constructor(options: { secretsDir: string; stateDir: string }) {
    this.#secretsDir = join(options.secretsDir, 'tasks')
    this.#oldConfigsDir = join(options.stateDir, 'task-files')
  }

  /** Writes what is missing or differs. Files that are right are left alone: they may be mounted. */
  async write(taskId: TaskId, files: readonly TaskFile[]): Promise<readonly FileMount[]> {
    const mounts: FileMount[] = []
    const inSecrets = files.filter(({ target }) => isBelow(target, secretsTarget))
    const elsewhere = files.filter((file) => !inSecrets.includes(file))
    if (files.length > 0) await this.#ensureTmpfs()
    if (inSecrets.length > 0) {
      const folder = join(this.#secretsDir, taskId, 'run-secrets')
      await makeFolder(dirname(folder), 0o700)
      await makeFolder(folder, 0o755)
      for (const file of inSecrets) {
        const path = join(folder, posix.relative(secretsTarget, file.target))
        await makeFolder(dirname(path), 0o755)
        await writeOne(path, file)
      }
      mounts.push({ source: folder, target: secretsTarget })
    }
    for (const [index, file] of elsewhere.entries()) {
      const folder = join(this.#secretsDir, taskId)
      await makeFolder(folder, 0o700)
      const path = join(folder, `file-${index}`)
      await writeOne(path, file)
      mounts.push({ source: path, target: file.target })
    }
    return mounts
  }

  async remove(taskId: TaskId): Promise<void> {
    for (const folder of [this.#secretsDir, this.#oldConfigsDir]) {
      await rm(join(folder, taskId), { recursive: true, force: true })
    }
  }

  /** Removes the files of every task but these. What is not named like a task is not ours. */
  async removeOthers(keep: ReadonlySet<string>): Promise<void> {
    for (const folder of [this.#secretsDir, this.#oldConfigsDir]) {
      for (const name of await readdir(folder).catch(() => [])) {
        if (isTaskId.test(name) && !keep.has(name))
          await rm(join(folder, name), { recursive: true, force: true })
      }
    }
  }

  #ensureTmpfs(): Promise<void> {
    this.#tmpfs ??= ensureTmpfs(this.#secretsDir).catch((error: unknown) => {
      this.#tmpfs = undefined
      throw error
    })
    return this.#tmpfs
  }
}

/** Makes `folder` be memory and nothing else: mounts a tmpfs there unless one is. */
async function ensureTmpfs(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  if (!(await isInMemory(folder))) {
    const options = `mode=0700,nosuid,nodev,noexec,size=${filesBytesMax}`
    const mount = promisify(execFile)
    try {
      // noswap (Linux 6.4) keeps secrets off the swap disk too; older kernels don't know it.
      await mount('mount', ['-t', 'tmpfs', '-o', `${options},noswap`, 'skep', folder]).catch(() =>
        mount('mount', ['-t', 'tmpfs', '-o', options, 'skep', folder]),
      )
    } catch (error) {
      throw new UserError(
        'failedPrecondition',
        `secrets and configs need memory at ${folder}, and mounting a tmpfs there failed: ${messageOf(error)}`,
        { next: 'Run the daemon as root, or mount a tmpfs there yourself.', cause: error },
      )
    }
    if (!(await isInMemory(folder))) {
      throw new UserError(
        'failedPrecondition',
        `${folder} is on a disk; secrets and configs must not be`,
      )
    }
  }
  await chmod(folder, 0o700)
}

async function isInMemory(path: string): Promise<boolean> {
  const { type } = await statfs(path)
  return type === tmpfsMagic || type === ramfsMagic
}

/** Unmounts and removes what a runtime made in `secretsDir`. For taking Skep off a host. */
export async function removeSecretsDir(secretsDir: string): Promise<void> {
  const folder = join(secretsDir, 'tasks')
  await promisify(execFile)('umount', ['-l', folder]).catch(() => {
    // Not mounted: what is there is removed below.
  })
  await rm(folder, { recursive: true, force: true })
}

export function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith('/') ? folder : `${folder}/`)
}

async function makeFolder(path: string, mode: number): Promise<void> {
  await mkdir(path, { recursive: true, mode })
  await chmod(path, mode)
}

async function writeOne(path: string, file: TaskFile): Promise<void> {
  const known = await readFile(path).catch(() => undefined)
  if (!known?.equals(file.data)) {
    // Closed to others until owner and mode are right.
    await writeFile(path, file.data, { mode: 0o600 })
  }
  await chown(path, file.uid, file.gid)
  await chmod(path, file.mode)
}
