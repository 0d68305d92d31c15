// What Edge.js asks of the package of this name: the lists of libraries that lie beside a program. There are none here;
// what .NET itself has, CoreCLR finds without.

using System.Collections.Generic;
using System.IO;

namespace Microsoft.Extensions.DependencyModel
{
    public class Library
    {
        public string Name;
        public string Type;
        public string Version;
    }

    public class RuntimeAssetGroup
    {
    }

    public class RuntimeLibrary : Library
    {
        public readonly IReadOnlyList<RuntimeAssetGroup> RuntimeAssemblyGroups = new RuntimeAssetGroup[0];
    }

    public class CompilationLibrary : Library
    {
        public readonly IReadOnlyList<string> Assemblies = new string[0];
    }

    public class TargetInfo
    {
        public string Framework = "";
    }

    public class DependencyContext
    {
        public static readonly DependencyContext Default = null;

        public readonly TargetInfo Target = new TargetInfo();
        public readonly IReadOnlyList<RuntimeLibrary> RuntimeLibraries = new RuntimeLibrary[0];
        public readonly IReadOnlyList<CompilationLibrary> CompileLibraries = new CompilationLibrary[0];

        public DependencyContext Merge(DependencyContext other)
        {
            return this;
        }
    }

    public class DependencyContextJsonReader
    {
        public DependencyContext Read(Stream manifest)
        {
            return new DependencyContext();
        }
    }

    public static class DependencyContextExtensions
    {
        public static IEnumerable<string> GetRuntimeAssets(this IEnumerable<RuntimeAssetGroup> groups, string runtime)
        {
            return new string[0];
        }

        public static IEnumerable<string> GetDefaultAssets(this IEnumerable<RuntimeAssetGroup> groups)
        {
            return new string[0];
        }

        public static IEnumerable<string> GetRuntimeNativeAssets(this RuntimeLibrary library, DependencyContext context, string runtime)
        {
            return new string[0];
        }
    }
}
