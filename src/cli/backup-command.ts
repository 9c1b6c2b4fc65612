import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { isAbsolute, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { messageOf, UserError } from '../base/index.ts'
import { openClient } from './client.ts'
import { type CliContext, newCommand } from './command.ts'
import type { Io } from './io.ts'
import { formatBytes } from './output.ts'
import { readSecret } from './secret-input.ts'

interface PassphraseFlags {
  readonly passphraseFile?: string
}
interface RestoreFlags extends PassphraseFlags {
  readonly dataRoot: string
  readonly advertiseAddr?: string
  readonly listenAddr: string
}

/** `skep backup`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const backup = newCommand(
    'backup',
    'Backups: the whole state of the cluster in one encrypted file',
  )

  backup
    .command('create')
    .argument('<file>')
    .description('Write a backup while the cluster runs: services, secrets, certificates, keys')
    .option('--passphrase-file <file>', 'What encrypts it (default: asked for, or from a pipe)')
    .action(async (file: string, flags: PassphraseFlags) => {
      const path = resolve(io.directory, file)
      const passphrase = await passphraseOf(io, flags, true)
      const client = await openClient(context)
      const answer = await client.open('/skep/v1/backup', {
        method: 'POST',
        body: { Passphrase: passphrase },
        signal: io.signal,
      })
      // Under its own name only once it is whole.
      const temporary = `${path}.part`
      let size = 0
      try {
        await pipeline(
          answer,
          async function* (pieces: AsyncIterable<Buffer>) {
            for await (const piece of pieces) {
              size += piece.length
              yield piece
            }
          },
          createWriteStream(temporary, { mode: 0o600, flush: true }),
        )
        await rename(temporary, path)
      } catch (error) {
        await rm(temporary, { force: true })
        if (io.signal.aborted) throw io.signal.reason
        throw new UserError('unavailable', `the backup was not written: ${messageOf(error)}`, {
          next: `Check the daemon and the space for ${path}, and try again.`,
          cause: error,
        })
      }
      io.stdout.write(
        `${path}: ${formatBytes(size)}. Without its passphrase it is worth nothing.\n`,
      )
    })

  backup
    .command('restore')
    .argument('<file>')
    .description('Begin a cluster of one manager on this machine with what a backup holds')
    .option(
      '--passphrase-file <file>',
      'What it was encrypted with (default: asked for, or from a pipe)',
    )
    .option('--data-root <dir>', "Where this node's daemon will keep its state", '/var/lib/skep')
    .option('--advertise-addr <address>', 'What other nodes reach this one by')
    .option('--listen-addr <host:port>', 'Cluster port', '0.0.0.0:2377')
    .action(async (file: string, flags: RestoreFlags) => {
      const passphrase = await passphraseOf(io, flags, false)
      const [{ restoreBackup }, { openRealClock, realRandom }, { openLog }] = await Promise.all([
        import('../daemon/restore.ts'),
        import('../base/real-world.ts'),
        import('../daemon/log.ts'),
      ])
      const restored = await restoreBackup({
        file: resolve(io.directory, file),
        passphrase,
        dataRoot: resolve(io.directory, flags.dataRoot),
        advertiseAddress: flags.advertiseAddr ?? '',
        listenAddress: flags.listenAddr,
        clock: openRealClock(),
        random: realRandom,
        log: openLog('error'),
      })
      const { takenAtMs, address, serviceCount, lostNodes, isLocked } = restored
      const lines = [
        `Restored ${serviceCount} service${serviceCount === 1 ? '' : 's'} as of ${new Date(takenAtMs).toISOString()}; this node is the manager at ${address}.`,
        `Start it with: skep daemon${flags.dataRoot === '/var/lib/skep' ? '' : ` --data-root ${flags.dataRoot}`}`,
        ...(isLocked
          ? ['It starts locked: have the unlock key at hand, and run: docker swarm unlock']
          : []),
        ...(lostNodes.length > 0
          ? [
              `Counted as down until they join again: ${lostNodes.join(', ')}. Make each leave first (docker swarm leave --force); remove those that are gone with: docker node rm`,
            ]
          : []),
      ]
      io.stdout.write(`${lines.join('\n')}\n`)
    })

  return backup
}

/** Never from the command line: other users of the machine can read that. */
async function passphraseOf(
  io: Io,
  { passphraseFile }: PassphraseFlags,
  isNew: boolean,
): Promise<string> {
  if (passphraseFile !== undefined) {
    const path = isAbsolute(passphraseFile) ? passphraseFile : resolve(io.directory, passphraseFile)
    const bytes = await io.readFile(path).catch((cause: unknown) => {
      throw new UserError('invalidInput', `cannot read the passphrase: ${messageOf(cause)}`, {
        cause,
      })
    })
    return bytes.toString('utf8').replace(/\r?\n$/, '')
  }
  const passphrase = await readSecret(io, 'Passphrase of the backup: ')
  if (passphrase === '') {
    throw new UserError('invalidInput', 'no passphrase was given', {
      next: 'Pipe it in, or name a file with --passphrase-file.',
    })
  }
  if (!isNew || io.stdin.isTTY !== true) return passphrase
  if ((await readSecret(io, 'The same again: ')) === passphrase) return passphrase
  throw new UserError('invalidInput', 'the two passphrases differ')
}
