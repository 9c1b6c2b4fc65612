import { posix } from 'node:path'
import { UserError } from '../base/index.ts'
import type { ContainerSpec } from '../model/index.ts'
import type { TaskAssignment } from '../wire/index.ts'
import type { Materials } from './runtime.ts'
import { secretsTarget, type TaskFile } from './task-files.ts'
import { renderTemplate, type TemplateContext } from './template.ts'

/** What a task's templates may speak of. */
export function templateContextOf(
  assignment: TaskAssignment,
  node: Materials['assignments']['node'],
): TemplateContext {
  const { task, workload } = assignment
  return {
    Service: { ID: workload.id, Name: workload.name, Labels: workload.labels },
    Node: {
      ID: node.id,
      Hostname: node.hostname,
      Platform: { Architecture: node.platform.architecture, OS: node.platform.os },
    },
    Task: {
      ID: task.id,
      Name: assignment.name,
      Slot: task.slot === undefined ? node.id : String(task.slot),
    },
  }
}

/** The container's spec with the templates in hostname, env and mounts filled in. */
export function renderContainer(container: ContainerSpec, context: TemplateContext): ContainerSpec {
  const render = (text: string): string => renderTemplate(text, context)
  const renderValues = (map: Readonly<Record<string, string>>): Record<string, string> =>
    Object.fromEntries(Object.entries(map).map(([key, value]) => [key, render(value)]))
  return {
    ...container,
    ...(container.hostname !== undefined && { hostname: render(container.hostname) }),
    env: container.env.map(render),
    mounts: container.mounts.map((mount) => {
      if (mount.type === 'tmpfs') return { ...mount, target: render(mount.target) }
      const places = { source: render(mount.source), target: render(mount.target) }
      if (mount.type === 'bind') return { ...mount, ...places }
      const { driver, labels } = mount.volume
      return {
        ...mount,
        ...places,
        volume: {
          ...mount.volume,
          labels: renderValues(labels),
          ...(driver && { driver: { ...driver, options: renderValues(driver.options) } }),
        },
      }
    }),
  }
}

/** The secrets and configs of a container as files, templates filled in. `container` is already rendered. */
export function filesOf(
  container: ContainerSpec,
  materials: Materials,
  context: TemplateContext,
): readonly TaskFile[] {
  const { secrets, configs } = materials.assignments
  const configFiles = container.configs.filter((reference) => reference.type === 'file')
  const secretNamed = (target: string): Uint8Array | undefined => {
    const reference =
      container.secrets.find((secret) => secret.target === target) ??
      container.secrets.find((secret) => secret.name === target)
    return reference && secrets.get(reference.id)?.data
  }
  const configNamed = (target: string): Uint8Array | undefined => {
    const reference =
      configFiles.find((config) => config.target === target) ??
      configFiles.find((config) => config.name === target)
    return reference && configs.get(reference.id)?.data
  }
  const files: TaskFile[] = []

  for (const reference of container.secrets) {
    const secret = secrets.get(reference.id)
    const what = `secret "${reference.name}"`
    if (!secret) throw missing(what)
    files.push({ ...placeOf(what, reference, secretsTarget), data: expand(what, secret, true) })
  }
  for (const reference of configFiles) {
    const config = configs.get(reference.id)
    const what = `config "${reference.name}"`
    if (!config) throw missing(what)
    files.push({ ...placeOf(what, reference, '/'), data: expand(what, config, false) })
  }
  const targets = new Map<string, string>()
  for (const { target, what } of files) {
    const other = targets.get(target)
    if (other) {
      throw new UserError('invalidInput', `${other} and ${what} both want to be ${target}`, {
        next: 'Give one of them another target.',
      })
    }
    targets.set(target, what)
  }
  return files

  function expand(
    what: string,
    source: { readonly data: Uint8Array; readonly templating?: string },
    isSecret: boolean,
  ): Uint8Array {
    if (source.templating === undefined) return source.data
    if (source.templating !== 'golang') {
      throw new UserError('unsupported', `${what}: template driver "${source.templating}"`, {
        next: 'Use the driver golang.',
      })
    }
    const rendered = (() => {
      try {
        return renderTemplate(Buffer.from(source.data).toString(), context, {
          secret(target) {
            const data = secretNamed(target)
            if (!data)
              throw new UserError('invalidInput', `${what}: secret "${target}" is not the task's`)
            return Buffer.from(data).toString()
          },
          config(target) {
            const data = configNamed(target)
            if (!data)
              throw new UserError('invalidInput', `${what}: config "${target}" is not the task's`)
            return Buffer.from(data).toString()
          },
          env: (name) =>
            container.env.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? '',
        })
      } catch (error) {
        // The expression is part of the data: a secret's must not be shown.
        if (!isSecret) throw error
        throw new UserError('invalidInput', `${what}: its template can't be rendered`, {
          next: 'Create it anew: its fields, functions and the targets it names must exist.',
        })
      }
    })()
    return Buffer.from(rendered)
  }
}

function missing(what: string): UserError {
  return new UserError('unavailable', `${what} has not reached this node yet`)
}

function placeOf(
  what: string,
  reference: {
    readonly target: string
    readonly uid: string
    readonly gid: string
    readonly mode: number
  },
  folder: string,
): Pick<TaskFile, 'what' | 'target' | 'uid' | 'gid' | 'mode'> {
  const target = posix.resolve(folder, reference.target)
  if (target === folder || target === '/' || target === secretsTarget) {
    throw new UserError('invalidInput', `${what} has no file name as its target`)
  }
  if (
    folder === secretsTarget &&
    !reference.target.startsWith('/') &&
    !target.startsWith(`${folder}/`)
  ) {
    throw new UserError('invalidInput', `${what}: target "${reference.target}" leaves ${folder}`, {
      next: 'Use a name without "..", or an absolute path.',
    })
  }
  const id = (text: string, kind: string): number => {
    if (/^\d{1,10}$/.test(text) && Number(text) <= 0xffff_fffe) return Number(text)
    throw new UserError('invalidInput', `${what}: ${kind} "${text}" is not a number`, {
      next: `Give the numeric ${kind}.`,
    })
  }
  return {
    what,
    target,
    uid: id(reference.uid === '' ? '0' : reference.uid, 'uid'),
    gid: id(reference.gid === '' ? '0' : reference.gid, 'gid'),
    mode: reference.mode & 0o7777,
  }
}
