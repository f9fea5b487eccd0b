// An OpenID Connect provider (npm `oidc-provider`) on loopback. Arguments: port, redirect URI, audience.
import Provider from "oidc-provider";

const [port, redirectUri, audience] = process.argv.slice(2);
const client = { grant_types: ["authorization_code"], response_types: ["code"], redirect_uris: [redirectUri] };
const resource = {
  audience,
  scope: "use",
  accessTokenFormat: "jwt",
  accessTokenTTL: 600,
  jwt: { sign: { alg: "RS256" } },
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    { ...client, client_id: "page", client_secret: "a-secret-of-the-page" },
    { ...client, client_id: "public", token_endpoint_auth_method: "none" },
    {
      ...client,
      client_id: "robot",
      client_secret: "a-secret-of-the-robot",
      grant_types: ["client_credentials", "authorization_code"],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username", "roles"], email: ["email"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: `name-of-${id}`, roles: [`role-of-${id}`] }),
  }),
  extraTokenClaims: () => ({ roles: ["slipway-operators"] }),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: () => resource,
      useGrantedResource: () => true,
    },
  },
});
provider.listen(Number(port), "127.0.0.1");
