import { usageError } from './command.ts'
import type { AddCommand } from './compose-files.ts'
import { parseIndex, pickContainer, pickContainers, withSession } from './compose-session.ts'
import { type CopyFlags, copyIn, copyOut, parsePlace } from './container-copy.ts'

interface Flags extends CopyFlags {
  readonly index?: number
  readonly all?: boolean
}

export const addCopyCommand: AddCommand = (parent, compose) => {
  parent
    .command('cp')
    .argument('<source>')
    .argument('<target>')
    .description('Copy between a service (service:path) and this machine')
    .option('-a, --archive', 'Keep owners')
    .option('--all', 'Into every container of the service, one-off ones too')
    .option('-L, --follow-link', 'Copy what a link leads to')
    .option('--index <number>', 'Number of the container', parseIndex)
    .action((source: string, target: string, flags: Flags) => {
      const [fromService, from] = parsePlace(source)
      const [toService, to] = parsePlace(target)
      if ((fromService === undefined) === (toService === undefined)) {
        throw usageError('copy between a service (service:path) and this machine: one of each')
      }
      const service = fromService ?? toService ?? ''
      return withSession(compose, { files: 'optional', services: [service] }, async (session) => {
        const { io, world } = session
        const { engine, signal, warn } = world
        const place = { io, engine, signal, warn }
        if (fromService !== undefined) {
          const container = await pickContainer(session, service, flags.index, true)
          await copyOut(place, container, from, to)
          return
        }
        const targets = flags.all
          ? await pickContainers(session, [service], { oneOff: true })
          : [await pickContainer(session, service, flags.index, true)]
        for (const container of targets) await copyIn(place, from, container, to, flags)
      })
    })
}
