import { randomBytes } from 'node:crypto'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { messageOf, UserError } from '../base/index.ts'

/** Writes a file that only its owner may read: whole and durable, or as it was before. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  await orExplain(path, () => writeDurably(path, text))
}

/** Adds to such a file, which is made where there is none. Durable after that; where it fails a part of the text may be there. */
export async function appendPrivateFile(path: string, text: string): Promise<void> {
  await orExplain(path, async () => {
    const file = await open(path, 'a', 0o600)
    try {
      const { size } = await file.stat()
      await file.writeFile(text)
      await file.datasync()
      if (size === 0) await syncDirectory(dirname(path))
    } finally {
      await file.close()
    }
  })
}

async function orExplain(path: string, write: () => Promise<void>): Promise<void> {
  try {
    await write()
  } catch (cause) {
    throw new UserError('unavailable', `${path} can not be written: ${messageOf(cause)}`, {
      next: 'Check the space and the permissions there, and try again.',
      cause,
    })
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const directory = dirname(path)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  try {
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(directory)
}

/** A new name is durable only after this. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Reads such a file; undefined where there is none. Throws `forbidden` when others may read it. */
export async function readPrivateFile(path: string): Promise<string | undefined> {
  let file: Awaited<ReturnType<typeof open>>
  try {
    file = await open(path, 'r')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new UserError('unavailable', `${path} can not be read: ${messageOf(error)}`, {
      next: 'Check the permissions there, and try again.',
      cause: error,
    })
  }
  try {
    const { mode } = await file.stat()
    if ((mode & 0o077) !== 0) {
      throw new UserError(
        'forbidden',
        `${path} holds keys, and others may read it (mode ${(mode & 0o777).toString(8)})`,
        { next: `Run \`chmod 600 ${path}\`, and think about who may have read it.` },
      )
    }
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}
