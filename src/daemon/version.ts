import packageJson from '../../package.json' with { type: 'json' }

/** Version of Skep. Imported, not read, so that the bundle has it inside. */
export const version: string = packageJson.version
