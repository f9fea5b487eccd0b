"""Outside identity by OpenID Connect: bearer tokens of an issuer, and sign-in of the web page with it.

Loaded only where OIDC_ISSUER is set: Authlib and joserfc take 0.1 s and 1.4 MB. Other code imports no module of this
package when it is loaded, but `refusals`.
"""
