import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { sharedEngine } from '../support/daemon.ts'
import type { LabHost } from './host.ts'
import { must } from './namespaces.ts'

/** What every host has unless asked otherwise. */
export const usualImages: readonly string[] = ['whoami:v1', 'busybox:latest']
const templatesFolder = '/var/tmp/skep-lab-images'

/** Where an engine's data with these images lies, whether it is made yet or not. They are those of the shared engine. */
export async function templateFor(images: readonly string[]): Promise<string> {
  const sorted = [...images].sort()
  const ids = await must([
    ...['docker', '-H', sharedEngine, 'image', 'inspect', '-f', '{{.ID}}', ...sorted],
  ])
  const version = await must(['dockerd', '--version'])
  const key = createHash('sha256')
    .update(`${version} ${sorted.join(' ')} ${ids}`)
    .digest('hex')
  return join(templatesFolder, key.slice(0, 16))
}

/**
 * Makes the template: the shared engine's images, loaded by a host's own engine. A host then has them as hard links
 * (layers are only read) and a copy of the small rest, in a fraction of a second.
 */
export async function makeTemplate(
  template: string,
  images: readonly string[],
  host: LabHost,
): Promise<void> {
  await host.loadImages(...images)
  await host.stopEngine('SIGTERM')
  await mkdir(templatesFolder, { recursive: true })
  const made = await mkdtemp(`${template}-`)
  for (const part of ['overlay2', 'image']) {
    await must(['cp', '-al', join(host.folder, 'docker', part), made])
  }
  // Another lab may have been faster.
  await rename(made, template).catch(() => rm(made, { recursive: true, force: true }))
  // What the engine writes in place must not be shared with the template.
  await rm(join(host.folder, 'docker', 'image'), { recursive: true, force: true })
  await must(['cp', '-a', join(template, 'image'), join(host.folder, 'docker')])
  await host.startEngine()
}

export async function placeImages(template: string, folder: string): Promise<void> {
  const data = join(folder, 'docker')
  if (!existsSync(template) || existsSync(join(data, 'image'))) return
  await mkdir(data, { recursive: true, mode: 0o710 })
  await must(['cp', '-al', join(template, 'overlay2'), data])
  await must(['cp', '-a', join(template, 'image'), data])
}
