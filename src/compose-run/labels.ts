import type { ComposeService, Project } from '../compose/index.ts'

/** Docker Compose's labels: what either tool knows a project's things by. */
export const label = {
  project: 'com.docker.compose.project',
  service: 'com.docker.compose.service',
  number: 'com.docker.compose.container-number',
  hash: 'com.docker.compose.config-hash',
  oneOff: 'com.docker.compose.oneoff',
  slug: 'com.docker.compose.slug',
  workingDirectory: 'com.docker.compose.project.working_dir',
  files: 'com.docker.compose.project.config_files',
  envFiles: 'com.docker.compose.project.environment_file',
  version: 'com.docker.compose.version',
  dependsOn: 'com.docker.compose.depends_on',
  image: 'com.docker.compose.image',
  network: 'com.docker.compose.network',
  volume: 'com.docker.compose.volume',
  /** Our own, on networks and volumes: what they were made from. */
  ownHash: 'skep.compose.config-hash',
} as const

/** What a container was made for. */
export interface ContainerIdentity {
  readonly service: string
  readonly number: number
  readonly hash: string
  /** Id of its image. */
  readonly imageId: string
  /** Of a container of `run`; absent: one of the service's own. */
  readonly slug?: string
}

/** The labels of a container, over those of its service. */
export function containerLabels(
  project: Project,
  service: ComposeService,
  identity: ContainerIdentity,
  { version, envFiles = [] }: { readonly version: string; readonly envFiles?: readonly string[] },
): Record<string, string> {
  return {
    ...service.labels,
    [label.project]: project.name,
    [label.service]: identity.service,
    [label.number]: String(identity.number),
    [label.hash]: identity.hash,
    [label.image]: identity.imageId,
    [label.oneOff]: identity.slug === undefined ? 'False' : 'True',
    ...(identity.slug !== undefined && { [label.slug]: identity.slug }),
    [label.workingDirectory]: project.workingDirectory,
    [label.files]: project.files.join(','),
    ...(envFiles.length > 0 && { [label.envFiles]: envFiles.join(',') }),
    [label.version]: version,
    [label.dependsOn]: formatDependencies(service.dependsOn ?? {}),
  }
}

/** `db:service_healthy:true,cache:service_started:false`; the truth value says whether it restarts along. */
export function formatDependencies(dependencies: NonNullable<ComposeService['dependsOn']>): string {
  return Object.entries(dependencies)
    .map(([name, { condition, restart }]) => `${name}:${condition}:${restart ?? false}`)
    .join(',')
}

/** The services a label of dependencies names. */
export function parseDependencies(text: string | undefined): readonly string[] {
  return (text ?? '')
    .split(',')
    .map((part) => part.split(':')[0] ?? '')
    .filter((name) => name !== '')
}

/** How many containers a service has without `--scale`. A global one has one: there is one engine. */
export function scaleOf(service: ComposeService): number {
  if (service.deploy?.mode === 'global') return 1
  return service.scale ?? service.deploy?.replicas ?? 1
}
