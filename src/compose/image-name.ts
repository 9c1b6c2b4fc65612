/**
 * An image's name as the stock CLI sends it: Docker Hub's own prefixes left out, `latest` where neither tag nor digest is
 * given.
 */
export function familiarImage(image: string): string {
  const bare = image.replace(/^(?:index\.)?docker\.io\//, '').replace(/^library\/(?=[^/]+$)/, '')
  const lastPart = bare.slice(bare.lastIndexOf('/') + 1)
  return /[:@]/.test(lastPart) ? bare : `${bare}:latest`
}

/** The same image, pinned to what a registry said it is. One that names its digest stays. */
export function pinImage(image: string, digest: string): string {
  return image.includes('@') ? image : `${image}@${digest}`
}
