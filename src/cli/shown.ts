import type { PortBody } from '../compose/index.ts'

/** `*:8080->80/tcp`. */
export function formatPort({ PublishedPort, TargetPort, Protocol = 'tcp' }: PortBody): string {
  return `*:${PublishedPort ?? 0}->${TargetPort ?? 0}/${Protocol}`
}

/** An image without its digest where it has a tag. */
export function shownImage(image: string, noTrunc = false): string {
  return noTrunc ? image : image.replace(/^(.*[^/]:[^/@]+)@sha256:[0-9a-f]+$/, '$1')
}
