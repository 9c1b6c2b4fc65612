import { writeFile } from 'node:fs/promises'
import { messageOf, UserError } from '../base/index.ts'
import {
  listProject,
  loadProject,
  loadRawModel,
  type Project,
  type ProjectList,
  pinImages,
  renderModel,
  renderProject,
  selectServices,
} from '../compose/index.ts'
import { usageError } from './command.ts'
import {
  type AddCommand,
  absolute,
  type ComposeContext,
  loadOptionsOf,
  openComposeEngine,
} from './compose-files.ts'

interface ConfigFlags {
  readonly format?: string
  readonly services?: boolean
  readonly images?: boolean
  readonly volumes?: boolean
  readonly networks?: boolean
  readonly profiles?: boolean
  readonly environment?: boolean
  readonly variables?: boolean
  readonly hash?: string
  readonly interpolate?: boolean
  readonly resolveImageDigests?: boolean
  readonly quiet?: boolean
  readonly output?: string
}

export const addConfigCommand: AddCommand = (parent, compose) => {
  const { io } = compose
  parent
    .command('config')
    .alias('convert')
    .argument('[service...]')
    .description('Print the project as one file, with all that its files leave out')
    .option('--format <format>', 'yaml or json')
    .option('--services', 'Only the names of services')
    .option('--images', 'Only the images')
    .option('--volumes', 'Only the volumes')
    .option('--networks', 'Only the networks')
    .option('--profiles', 'Only the profiles')
    .option('--environment', 'Only the variables that were put in')
    .option('--hash <services>', 'Hashes of services, split by commas; * is all')
    .option('--no-interpolate', 'Leave variables as they are')
    .option('--resolve-image-digests', 'Pin images to their digests')
    .option('-q, --quiet', 'Only check the files')
    .option('-o, --output <path>', 'Write to this file')
    .action(async (services: string[], flags: ConfigFlags) => {
      const text = await configText(compose, services, flags)
      if (flags.quiet) return
      if (flags.output === undefined) io.stdout.write(text)
      else {
        const path = absolute(io, flags.output)
        await writeFile(path, text).catch((cause: unknown) => {
          throw new UserError('invalidInput', `cannot write ${path}: ${messageOf(cause)}`, {
            cause,
          })
        })
      }
    })
}

async function configText(
  compose: ComposeContext,
  services: readonly string[],
  flags: ConfigFlags,
): Promise<string> {
  const { io } = compose
  const format = flags.format ?? 'yaml'
  if (format !== 'yaml' && format !== 'json') {
    throw usageError(`--format ${format}: choose yaml or json`)
  }
  const warn = (text: string): void => {
    io.stderr.write(`skep: warning: ${text}\n`)
  }
  const load = loadOptionsOf(compose, compose.flags(), warn, services)
  if (flags.interpolate === false) {
    const { model } = await loadRawModel(load)
    return renderModel(model, format)
  }
  const whole = await loadProject(load)
  if (flags.quiet) return ''
  const project: Project =
    services.length === 0 ? whole : selectServices(whole, services, { withDependencies: true })
  const list = listOf(flags)
  if (list !== undefined) {
    const only = list === 'hash' && flags.hash !== '*' ? (flags.hash ?? '').split(',') : []
    return listProject(project, list, only)
      .map((line) => `${line}\n`)
      .join('')
  }
  if (!flags.resolveImageDigests) return renderProject(project, format)
  const [engine, { inspectImage }] = await Promise.all([
    openComposeEngine(compose),
    import('../compose-run/index.ts'),
  ])
  try {
    const pinned = await pinImages(project, async (image) => {
      const found = await inspectImage({ engine, signal: io.signal }, image)
      return found?.RepoDigests?.[0]?.split('@')[1]
    })
    return renderProject(pinned, format)
  } finally {
    engine.close()
  }
}

function listOf(flags: ConfigFlags): ProjectList | undefined {
  if (flags.hash !== undefined) return 'hash'
  const lists = ['services', 'images', 'volumes', 'networks', 'profiles', 'environment'] as const
  return lists.find((list) => flags[list] === true)
}
